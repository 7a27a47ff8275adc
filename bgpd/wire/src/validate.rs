//! The second step of decoding an UPDATE: its attributes are read by the attribute table, every error is given its
//! consequence, the strongest decides, and what is left becomes an [`Update`]. Pure.
//! RFC 7606 §3 to §5 (consequences), RFC 4271 §6.3 (NOTIFICATIONs), RFC 6793 §4.2.3 (AS4_PATH), RFC 4724 §2.

use smallvec::SmallVec;

use crate::attr::table::{self, Collected, Malformed, RawAttribute, Row, subcode};
use crate::attr::{NextHop, PathAttributes, UnknownAttribute, code, flag, next_hop4};
use crate::nlri::{self, Routable};
use crate::notification;
use crate::update::RawUpdate;
use crate::{
    Announcement, AsPath, Asn, Consequence, DecodeContext, DecodeError, Family, FamilySet, Nlri, NlriList,
    Notification, PrefixKey, Problem, Update,
};

/// Decodes the body (after the header) of an UPDATE.
///
/// # Errors
/// What ends the session.
pub(crate) fn update(body: &[u8], context: &DecodeContext) -> Result<Update, DecodeError> {
    let raw = RawUpdate::parse(body).ok_or_else(|| {
        let reason = "UPDATE: Withdrawn Routes Length or Total Attribute Length exceeds the message";
        DecodeError::new(Notification::malformed_attribute_list(), reason)
    })?;
    let mut reading = Reading::new(context);
    reading.attributes(raw.attributes)?;
    let withdrawn = reading.withdrawn(&raw)?;
    let reachable = reading.reachable(&raw)?;
    reading.judge(&raw, withdrawn, reachable)
}

/// Prefixes that one UPDATE announces, with the next hop for them; `None` where it is missing or no host's address.
type Reachable = SmallVec<[(NlriList, Option<NextHop>); 1]>;

/// An error that RFC 7606 may let the session survive.
struct Fault {
    consequence: Consequence,
    attribute: Option<u8>,
    reason: String,
    /// What to send should the session have to be reset after all (RFC 7606 §5.2).
    notification: Notification,
}

/// An UPDATE being read.
struct Reading<'a> {
    context: &'a DecodeContext,
    collected: Collected<'a>,
    faults: Vec<Fault>,
    /// A bit for each attribute code that occurred.
    seen: [u64; 4],
    /// Where the MP attributes are, to be quoted.
    mp_reach: &'a [u8],
    mp_unreach: &'a [u8],
    /// Something other than MP_UNREACH_NLRI stands among the attributes.
    other_attributes: bool,
}

fn update_error(subcode: u8, data: &[u8]) -> Notification {
    Notification { code: notification::code::UPDATE, subcode, data: data.to_vec() }
}

fn reset(notification: Notification, reason: impl std::fmt::Display) -> DecodeError {
    DecodeError::new(notification, format!("UPDATE: {reason}"))
}

impl<'a> Reading<'a> {
    fn new(context: &'a DecodeContext) -> Self {
        Reading {
            context,
            collected: Collected::default(),
            faults: Vec::new(),
            seen: [0; 4],
            mp_reach: &[],
            mp_unreach: &[],
            other_attributes: false,
        }
    }

    fn has_seen(&self, code: u8) -> bool {
        self.seen[usize::from(code >> 6)] & 1 << (code & 63) != 0
    }

    fn fault(
        &mut self,
        consequence: Consequence,
        attribute: Option<u8>,
        reason: String,
        notification: Notification,
    ) {
        self.faults.push(Fault { consequence, attribute, reason, notification });
    }

    fn discard(&mut self, attribute: u8, reason: String) {
        let unused = Notification::malformed_attribute_list();
        self.fault(Consequence::AttributeDiscard, Some(attribute), reason, unused);
    }

    /// Reads the path attributes field.
    fn attributes(&mut self, field: &'a [u8]) -> Result<(), DecodeError> {
        let mut rest = field;
        while !rest.is_empty() {
            let Some(attribute) = RawAttribute::cut(&mut rest) else { return self.overrun(rest) };
            self.attribute(&attribute)?;
        }
        Ok(())
    }

    /// RFC 7606 §4: the last attribute exceeds Total Attribute Length, or does not even have a whole header.
    fn overrun(&mut self, rest: &[u8]) -> Result<(), DecodeError> {
        self.other_attributes = true;
        let reason = "the last attribute exceeds Total Attribute Length";
        let notification = Notification::malformed_attribute_list();
        // Its prefixes cannot be known, so they cannot be withdrawn (RFC 7606 §3 j).
        if matches!(rest.get(1), Some(&(code::MP_REACH_NLRI | code::MP_UNREACH_NLRI))) {
            return Err(reset(notification, reason));
        }
        self.fault(Consequence::TreatAsWithdraw, rest.get(1).copied(), reason.into(), notification);
        Ok(())
    }

    fn attribute(&mut self, attribute: &RawAttribute<'a>) -> Result<(), DecodeError> {
        let code = attribute.code;
        let name =
            || table::find(code).map_or_else(|| format!("attribute {code}"), |row| row.name.to_owned());
        if self.has_seen(code) {
            // RFC 7606 §3 g.
            if matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                return Err(reset(
                    Notification::malformed_attribute_list(),
                    format!("{} occurs twice", name()),
                ));
            }
            self.discard(code, format!("{} occurs again", name()));
            return Ok(());
        }
        self.seen[usize::from(code >> 6)] |= 1 << (code & 63);
        self.other_attributes |= code != code::MP_UNREACH_NLRI;
        match code {
            code::MP_REACH_NLRI => self.mp_reach = attribute.whole,
            code::MP_UNREACH_NLRI => self.mp_unreach = attribute.whole,
            _ => {}
        }
        match table::find(code) {
            Some(row) => self.known(row, attribute),
            None => self.unknown(attribute),
        }
    }

    fn known(&mut self, row: &'static Row, attribute: &RawAttribute<'a>) -> Result<(), DecodeError> {
        if !row.from.admits(self.context) {
            self.discard(row.code, format!("{}: not accepted from this kind of peer", row.name));
            return Ok(());
        }
        if (attribute.flags ^ row.flags) & (flag::OPTIONAL | flag::TRANSITIVE) != 0 {
            // RFC 7606 §3 c.
            let consequence = row.malformed.max(Malformed::Withdraw);
            let reason = format!("flags {:#04x} conflict with the type", attribute.flags);
            return self.malformed(row, attribute, consequence, subcode::FLAGS, &reason);
        }
        if !row.length.admits(attribute.value.len(), self.context) {
            let reason = format!("length {}", attribute.value.len());
            return self.malformed(row, attribute, row.malformed, subcode::LENGTH, &reason);
        }
        match (row.decode)(&mut self.collected, attribute, self.context) {
            Ok(()) => Ok(()),
            Err(reason) => self.malformed(row, attribute, row.malformed, row.subcode, reason),
        }
    }

    fn malformed(
        &mut self,
        row: &'static Row,
        attribute: &RawAttribute<'a>,
        malformed: Malformed,
        subcode: u8,
        reason: &str,
    ) -> Result<(), DecodeError> {
        let reason = format!("{}: {reason}", row.name);
        // RFC 4271 §6.3 defines no data for a malformed AS_PATH.
        let quoted = if subcode == subcode::AS_PATH { &[] } else { attribute.whole };
        let notification = update_error(subcode, quoted);
        match malformed {
            Malformed::Reset => return Err(reset(notification, reason)),
            Malformed::Withdraw => {
                self.fault(Consequence::TreatAsWithdraw, Some(row.code), reason, notification);
            }
            Malformed::Discard => {
                self.fault(Consequence::AttributeDiscard, Some(row.code), reason, notification);
            }
        }
        Ok(())
    }

    /// RFC 4271 §5: an optional transitive one is kept, an optional non-transitive one is ignored; §6.3: there is no
    /// well-known one this speaker does not know.
    fn unknown(&mut self, attribute: &RawAttribute<'a>) -> Result<(), DecodeError> {
        if attribute.flags & flag::OPTIONAL == 0 {
            return Err(reset(
                Notification::unrecognized_well_known(attribute.whole),
                format!("attribute {} claims to be well-known", attribute.code),
            ));
        }
        if attribute.flags & flag::TRANSITIVE != 0 {
            let value = attribute.value.into();
            self.collected.unknown.push(UnknownAttribute { code: attribute.code, partial: true, value });
        }
        Ok(())
    }

    /// What the UPDATE withdraws, of negotiated families. The fields are read even when the family was not
    /// negotiated: one that cannot be read leaves nothing to trust (RFC 7606 §3 i and j).
    fn withdrawn(&self, raw: &RawUpdate<'a>) -> Result<SmallVec<[NlriList; 1]>, DecodeError> {
        let mut lists = SmallVec::new();
        if !raw.withdrawn.is_empty() {
            let list = read_list(Family::Ipv4Unicast, raw.withdrawn, self.context).map_err(|reason| {
                reset(Notification::invalid_network_field(), format!("Withdrawn Routes: {reason}"))
            })?;
            if self.context.families.contains(Family::Ipv4Unicast) {
                lists.push(list);
            }
        }
        if let Some(unreach) = self.collected.mp_unreach.filter(|unreach| !unreach.nlri.is_empty()) {
            lists.push(read_list(unreach.family, unreach.nlri, self.context).map_err(|reason| {
                reset(Notification::optional_attribute(self.mp_unreach), format!("MP_UNREACH_NLRI: {reason}"))
            })?);
        }
        Ok(lists)
    }

    /// What the UPDATE announces, of negotiated families.
    fn reachable(&self, raw: &RawUpdate<'a>) -> Result<Reachable, DecodeError> {
        let mut lists = Reachable::new();
        if !raw.nlri.is_empty() {
            let list = read_list(Family::Ipv4Unicast, raw.nlri, self.context)
                .map_err(|reason| reset(Notification::invalid_network_field(), format!("NLRI: {reason}")))?;
            if self.context.families.contains(Family::Ipv4Unicast) {
                lists.push((list, self.collected.next_hop.and_then(next_hop4)));
            }
        }
        if let Some(reach) = self.collected.mp_reach.filter(|reach| !reach.nlri.is_empty()) {
            let list = read_list(reach.family, reach.nlri, self.context).map_err(|reason| {
                reset(Notification::optional_attribute(self.mp_reach), format!("MP_REACH_NLRI: {reason}"))
            })?;
            lists.push((list, reach.next_hop));
        }
        Ok(lists)
    }

    /// RFC 7606 §3 d and RFC 4271 §6.3: what prefixes cannot do without.
    fn require_mandatory(&mut self, raw: &RawUpdate<'a>, reachable: &Reachable) {
        let in_body = !raw.nlri.is_empty();
        for (code, name, needed) in [
            (code::ORIGIN, "ORIGIN", true),
            (code::AS_PATH, "AS_PATH", true),
            (code::NEXT_HOP, "NEXT_HOP", in_body),
        ] {
            if needed && !self.has_seen(code) {
                let notification = update_error(subcode::MISSING_WELL_KNOWN, &[code]);
                self.fault(
                    Consequence::TreatAsWithdraw,
                    Some(code),
                    format!("{name} is missing"),
                    notification,
                );
            }
        }
        if in_body && self.collected.next_hop.is_some_and(|address| next_hop4(address).is_none()) {
            let notification = update_error(subcode::NEXT_HOP, &[]);
            let reason = "NEXT_HOP: not the address of a host".to_owned();
            self.fault(Consequence::TreatAsWithdraw, Some(code::NEXT_HOP), reason, notification);
        }
        if self.collected.mp_reach.is_some_and(|reach| reach.next_hop.is_none()) && !reachable.is_empty() {
            let reason = "MP_REACH_NLRI: next hop is not the address of a host".to_owned();
            let notification = Notification::optional_attribute(self.mp_reach);
            self.fault(Consequence::TreatAsWithdraw, Some(code::MP_REACH_NLRI), reason, notification);
        }
    }

    /// RFC 7606 §3 h: the strongest consequence decides.
    fn judge(
        &mut self,
        raw: &RawUpdate<'a>,
        mut withdrawn: SmallVec<[NlriList; 1]>,
        reachable: Reachable,
    ) -> Result<Update, DecodeError> {
        let any_reachable = !raw.nlri.is_empty() || self.collected.mp_reach_has_nlri;
        if any_reachable {
            self.require_mandatory(raw, &reachable);
        }
        let mut announced = SmallVec::new();
        if let Some(at) = self.faults.iter().position(|f| f.consequence == Consequence::TreatAsWithdraw) {
            if !any_reachable {
                // RFC 7606 §5.2: what was to be withdrawn may be what could not be read.
                let fault = self.faults.swap_remove(at);
                let reason = format!("{}, and no reachable prefix to withdraw", fault.reason);
                return Err(reset(fault.notification, reason));
            }
            withdrawn.extend(reachable.into_iter().map(|(list, _)| list));
        } else {
            announced = self.announce(reachable);
        }
        let end_of_rib = self.end_of_rib(raw);
        let problems = self.faults.drain(..).map(|fault| Problem {
            consequence: fault.consequence,
            attribute: fault.attribute,
            reason: fault.reason,
        });
        Ok(Update { withdrawn, announced, end_of_rib, problems: problems.collect() })
    }

    fn announce(&mut self, reachable: Reachable) -> SmallVec<[Announcement; 1]> {
        let mut announced: SmallVec<[Announcement; 1]> = SmallVec::new();
        for (nlri, next_hop) in reachable {
            // Both are there unless a fault has said otherwise.
            let Some(next_hop) = next_hop else { continue };
            let nlri = self.only_routable(nlri);
            if nlri.is_empty() {
                continue;
            }
            let attributes = match announced.first() {
                Some(first) => PathAttributes { next_hop, ..first.attributes.clone() },
                None => path_attributes(&mut self.collected, next_hop),
            };
            announced.push(Announcement { attributes, nlri });
        }
        announced
    }

    /// RFC 4271 §6.3: a semantically incorrect prefix is ignored, and said so.
    fn only_routable(&mut self, nlri: NlriList) -> NlriList {
        fn split<P: PrefixKey + Routable>(list: &mut Vec<Nlri<P>>, faults: &mut Vec<Fault>) {
            if list.iter().all(|nlri| nlri.prefix.is_routable()) {
                return;
            }
            list.retain(|nlri| {
                let routable = nlri.prefix.is_routable();
                if !routable {
                    faults.push(Fault {
                        consequence: Consequence::PrefixIgnored,
                        attribute: None,
                        reason: format!("{} cannot be routed", nlri.prefix),
                        notification: Notification::invalid_network_field(),
                    });
                }
                routable
            });
        }
        match nlri {
            NlriList::V4(mut list) => {
                split(&mut list, &mut self.faults);
                NlriList::V4(list)
            }
            NlriList::V6(mut list) => {
                split(&mut list, &mut self.faults);
                NlriList::V6(list)
            }
        }
    }

    /// RFC 4724 §2: an empty UPDATE, or one with nothing but an empty MP_UNREACH_NLRI.
    fn end_of_rib(&self, raw: &RawUpdate<'a>) -> Option<Family> {
        if !raw.withdrawn.is_empty() || !raw.nlri.is_empty() || self.other_attributes {
            return None;
        }
        if raw.attributes.is_empty() {
            let family = Family::Ipv4Unicast;
            return self.context.families.contains(family).then_some(family);
        }
        self.collected.mp_unreach.filter(|unreach| unreach.nlri.is_empty()).map(|unreach| unreach.family)
    }
}

fn read_list(family: Family, field: &[u8], context: &DecodeContext) -> Result<NlriList, &'static str> {
    let add_path = context.add_path.intersection(context.families);
    let add_path = !FamilySet::only(family).intersection(add_path).is_empty();
    Ok(match family {
        Family::Ipv4Unicast => NlriList::V4(nlri::decode(field, add_path)?),
        Family::Ipv6Unicast => NlriList::V6(nlri::decode(field, add_path)?),
    })
}

/// Puts the attributes of one UPDATE together; a faultless one has ORIGIN and AS_PATH.
fn path_attributes(collected: &mut Collected<'_>, next_hop: NextHop) -> PathAttributes {
    let as_path = merge_as4(collected);
    let mut unknown = std::mem::take(&mut collected.unknown).into_vec();
    unknown.sort_by_key(|attribute| attribute.code);
    PathAttributes {
        origin: collected.origin.unwrap_or_default(),
        as_path,
        next_hop,
        med: collected.med,
        local_pref: collected.local_pref,
        atomic_aggregate: collected.atomic_aggregate,
        aggregator: collected.aggregator,
        communities: std::mem::take(&mut collected.communities),
        ext_communities: std::mem::take(&mut collected.ext_communities),
        large_communities: std::mem::take(&mut collected.large_communities),
        originator_id: collected.originator_id,
        cluster_list: std::mem::take(&mut collected.cluster_list),
        unknown,
        partial: collected.partial,
    }
}

/// RFC 6793 §4.2.3: the true path and aggregator out of what a two-octet peer could say.
fn merge_as4(collected: &mut Collected<'_>) -> AsPath {
    let path = collected.as_path.take().unwrap_or_default();
    if let (Some(aggregator), Some(as4_aggregator)) = (collected.aggregator, collected.as4_aggregator) {
        if aggregator.asn != Asn::TRANS {
            // Somebody without four-octet numbers aggregated later: AS4_PATH is out of date as well.
            return path;
        }
        collected.aggregator = Some(as4_aggregator);
    }
    match &collected.as4_path {
        Some(as4_path) => path.merge_as4(as4_path),
        None => path,
    }
}
