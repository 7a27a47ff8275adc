//! Names of what accepted or refused a path, as numbers: a path holds two bytes instead of a string.
//!
//! Owner: the RIB. Pure. The names are those of the policies in force and of the checks in here, so there are few; a
//! speaker whose rules were renamed more than 65,535 times over calls further ones `policy`.

use std::sync::Arc;

use hashbrown::HashMap;

use super::path::RuleId;

/// Checks that import does before any policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The name table is full.
    Other,
    /// A path of this speaker.
    Own,
    /// A path of this speaker that no peer is told of (`disableBGPExport`).
    OwnHidden,
    /// RFC 4271 §9.1.2.
    AsLoop,
    /// RFC 4456 §8.
    OwnOriginatorId,
    /// RFC 4456 §8.
    ClusterLoop,
}

const CHECKS: [&str; 6] = [
    "policy",
    "own prefix",
    "own prefix, not announced",
    "AS loop",
    "ORIGINATOR_ID is this speaker",
    "cluster loop",
];

/// The names.
pub(crate) struct RuleNames {
    names: Vec<Arc<str>>,
    index: HashMap<Arc<str>, RuleId, foldhash::fast::RandomState>,
    /// What was asked for last: policies give the same name for run after run of prefixes.
    last: Option<(Arc<str>, RuleId)>,
}

impl RuleNames {
    pub(crate) fn new() -> Self {
        let names: Vec<Arc<str>> = CHECKS.iter().map(|name| Arc::from(*name)).collect();
        RuleNames { names, index: HashMap::default(), last: None }
    }

    /// The number of a check.
    pub(crate) fn check(check: Check) -> RuleId {
        RuleId(check as u16)
    }

    /// The number of a policy rule's name.
    pub(crate) fn id(&mut self, name: &Arc<str>) -> RuleId {
        if let Some((last, id)) = &self.last
            && Arc::ptr_eq(last, name)
        {
            return *id;
        }
        let id = match self.index.get(name) {
            Some(id) => *id,
            None => match u16::try_from(self.names.len()) {
                Ok(number) => {
                    self.names.push(name.clone());
                    self.index.insert(name.clone(), RuleId(number));
                    RuleId(number)
                }
                Err(_) => Self::check(Check::Other),
            },
        };
        self.last = Some((name.clone(), id));
        id
    }

    /// The name of a number.
    pub(crate) fn name(&self, id: RuleId) -> Arc<str> {
        self.names[usize::from(id.0)].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_once_and_bounded() {
        let mut rules = RuleNames::new();
        let a: Arc<str> = "tor-in rule 1".into();
        let id = rules.id(&a);
        assert_eq!(rules.id(&Arc::from("tor-in rule 1")), id);
        assert_eq!(rules.name(id), a);
        for number in 0..70_000 {
            rules.id(&Arc::from(format!("rule {number}")));
        }
        let one_more = rules.id(&Arc::from("one more"));
        assert_eq!(&*rules.name(one_more), "policy");
        assert_eq!(&*rules.name(RuleNames::check(Check::AsLoop)), "AS loop");
        assert_eq!(&*rules.name(RuleNames::check(Check::ClusterLoop)), "cluster loop");
    }
}
