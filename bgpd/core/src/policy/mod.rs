//! Import and export policy: what becomes of a path on its way in, and on its way out to one peer.
//!
//! Pure. A policy is compiled once from documents and evaluated per prefix and attribute set; its verdict names the
//! rule that decided, so that a refused path can be shown with its reason.

use std::sync::Arc;

use causeway_bgp_wire::PathAttributes;
use causeway_bgp_wire::Prefix;

/// What a rule may look at beside prefix and attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyContext {
    /// The session is with another AS.
    pub ebgp: bool,
    /// The path is this speaker's own (export only).
    pub own: bool,
}

/// What a policy says of one path.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the path may pass.
    pub accept: bool,
    /// The rule that decided, for people.
    pub rule: Arc<str>,
    /// New attributes, where the rule changed them.
    pub changed: Option<PathAttributes>,
}

/// Rules for what one peer sends.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportPolicy {
    rule: Arc<str>,
}

/// Rules for what one peer is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportPolicy {
    rule: Arc<str>,
}

impl ImportPolicy {
    /// Lets everything pass as it is.
    pub fn accept_all() -> Self {
        ImportPolicy { rule: "accept all".into() }
    }

    /// What becomes of this path.
    pub fn evaluate(
        &self,
        _prefix: &Prefix,
        _attributes: &PathAttributes,
        _context: &PolicyContext,
    ) -> Verdict {
        Verdict { accept: true, rule: self.rule.clone(), changed: None }
    }
}

impl ExportPolicy {
    /// Lets everything pass as it is.
    pub fn accept_all() -> Self {
        ExportPolicy { rule: "accept all".into() }
    }

    /// What becomes of this path.
    pub fn evaluate(
        &self,
        _prefix: &Prefix,
        _attributes: &PathAttributes,
        _context: &PolicyContext,
    ) -> Verdict {
        Verdict { accept: true, rule: self.rule.clone(), changed: None }
    }
}
