//! The AS_PATH attribute as a value: kept in its four-octet wire form, so that decoding is a checked copy, encoding a
//! plain one, and equality a comparison of octets. Pure. RFC 4271 §4.3 and §5.1.2, RFC 5065, RFC 6793, RFC 7607.

use std::fmt;

use smallvec::SmallVec;

use crate::Asn;

/// What a segment of an AS_PATH means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// AS_SET: unordered, the outcome of aggregation.
    Set = 1,
    /// AS_SEQUENCE: ordered, the nearest AS first.
    Sequence = 2,
    /// AS_CONFED_SEQUENCE (RFC 5065).
    ConfedSequence = 3,
    /// AS_CONFED_SET (RFC 5065).
    ConfedSet = 4,
}

impl SegmentKind {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 => SegmentKind::ConfedSequence,
            4 => SegmentKind::ConfedSet,
            _ => return None,
        })
    }

    /// Whether the segment belongs to a confederation and so neither counts nor leaves it (RFC 5065 §5).
    pub fn is_confederation(self) -> bool {
        matches!(self, SegmentKind::ConfedSequence | SegmentKind::ConfedSet)
    }
}

/// One segment of an [`AsPath`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// What the numbers mean.
    pub kind: SegmentKind,
    octets: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The AS numbers, leftmost (nearest) first.
    pub fn asns(&self) -> impl DoubleEndedIterator<Item = Asn> + ExactSizeIterator + Clone + use<'a> {
        self.octets.chunks_exact(4).map(|c| Asn(u32::from_be_bytes([c[0], c[1], c[2], c[3]])))
    }
}

/// An AS_PATH: any number of segments, none of them empty.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct AsPath {
    /// Segments as RFC 4271 §4.3 writes them, with four-octet AS numbers. Invariant: well-formed.
    wire: SmallVec<[u8; 32]>,
}

/// How many AS numbers one segment can hold: its count is one octet.
const SEGMENT_MAX: usize = 255;

impl AsPath {
    /// The empty path: that of a prefix of one's own AS.
    pub fn empty() -> Self {
        AsPath::default()
    }

    /// A path of AS_SEQUENCE segments only, leftmost number first.
    pub fn from_sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        let asns: SmallVec<[Asn; 16]> = asns.into_iter().collect();
        let mut path = AsPath::empty();
        path.push_segment(SegmentKind::Sequence, &asns);
        path
    }

    /// Adds a segment at the right end (the origin's side); split where it exceeds 255 numbers, nothing if empty.
    pub fn push_segment(&mut self, kind: SegmentKind, asns: &[Asn]) {
        for chunk in asns.chunks(SEGMENT_MAX) {
            self.wire.extend_from_slice(&[kind as u8, chunk.len() as u8]);
            for asn in chunk {
                self.wire.extend_from_slice(&asn.0.to_be_bytes());
            }
        }
    }

    /// The segments as RFC 4271 §4.3 writes them, with four-octet AS numbers.
    pub fn as_octets(&self) -> &[u8] {
        &self.wire
    }

    /// A path from what [`AsPath::as_octets`] gave; `None` if that is not well-formed.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let mut segments = Segments::of(octets);
        while segments.next().is_some_and(|segment| !segment.octets.is_empty()) {}
        segments.rest.is_empty().then(|| AsPath { wire: SmallVec::from_slice(octets) })
    }

    /// The segments, leftmost first.
    pub fn segments(&self) -> Segments<'_> {
        Segments { rest: &self.wire }
    }

    /// Every AS number in the order of the wire, whatever its segment.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + Clone + '_ {
        self.segments().flat_map(|segment| segment.asns())
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// The length the decision process compares: a set counts one (RFC 4271 §9.1.2.2 a), confederation segments
    /// nothing (RFC 5065 §5.3).
    pub fn length(&self) -> usize {
        self.segments()
            .map(|segment| match segment.kind {
                SegmentKind::Sequence => segment.asns().len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// Whether the number occurs anywhere (the loop check of RFC 4271 §9.1.2).
    pub fn contains(&self, asn: Asn) -> bool {
        self.asns().any(|a| a == asn)
    }

    /// How often the number occurs.
    pub fn count(&self, asn: Asn) -> usize {
        self.asns().filter(|a| *a == asn).count()
    }

    /// The leftmost number, if the path begins with an AS_SEQUENCE: who sent the path over an external session.
    pub fn first_as(&self) -> Option<Asn> {
        let first = self.segments().next().filter(|s| s.kind == SegmentKind::Sequence)?;
        first.asns().next()
    }

    /// The neighbouring AS a MED is compared within: the leftmost number of the first segment that is none of a
    /// confederation (RFC 4271 §9.1.2.2 c). `None` for a path of one's own AS, or one that begins with a set.
    pub fn neighbour_as(&self) -> Option<Asn> {
        let first = self.segments().find(|s| !s.kind.is_confederation())?;
        if first.kind == SegmentKind::Sequence { first.asns().next() } else { None }
    }

    /// The AS that originated the prefix: the rightmost number, unless aggregation hid it in a set.
    pub fn origin_as(&self) -> Option<Asn> {
        let last = self.segments().last().filter(|s| s.kind == SegmentKind::Sequence)?;
        last.asns().next_back()
    }

    /// The path with `asn` put before it `times` over, as an external advertisement wants it (RFC 4271 §5.1.2 b).
    #[must_use]
    pub fn prepend(&self, asn: Asn, times: usize) -> Self {
        let mut leading: SmallVec<[Asn; 16]> = std::iter::repeat_n(asn, times).collect();
        let mut rest: &[u8] = &self.wire;
        let mut segments = self.segments();
        if let Some(first) = segments.next()
            && first.kind == SegmentKind::Sequence
            && first.asns().len() + times <= SEGMENT_MAX
        {
            leading.extend(first.asns());
            rest = segments.rest;
        }
        let mut path = AsPath::empty();
        path.push_segment(SegmentKind::Sequence, &leading);
        path.wire.extend_from_slice(rest);
        path
    }

    /// The path without confederation segments, as it leaves a confederation (RFC 5065 §4).
    #[must_use]
    pub fn without_confederation(&self) -> Self {
        let mut path = AsPath::empty();
        for segment in self.segments().filter(|s| !s.kind.is_confederation()) {
            path.push_segment(segment.kind, &segment.asns().collect::<SmallVec<[Asn; 16]>>());
        }
        path
    }

    /// Whether a confederation segment is in it.
    pub fn has_confederation(&self) -> bool {
        self.segments().any(|s| s.kind.is_confederation())
    }

    /// Whether any number needs four octets, so that a two-octet peer must be sent an AS4_PATH (RFC 6793 §4.2.2).
    pub fn needs_four_octets(&self) -> bool {
        self.asns().any(|asn| !asn.is_two_octet())
    }

    /// Appends the attribute value in four-octet form.
    pub(crate) fn encode_four_octet(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.wire);
    }

    /// Appends the attribute value in two-octet form, AS_TRANS for what does not fit (RFC 6793 §4.2.2).
    pub(crate) fn encode_two_octet(&self, out: &mut Vec<u8>) {
        for segment in self.segments() {
            out.extend_from_slice(&[segment.kind as u8, segment.asns().len() as u8]);
            for asn in segment.asns() {
                out.extend_from_slice(&asn.to_two_octet().to_be_bytes());
            }
        }
    }

    /// Reads an attribute value whose AS numbers take `width` (2 or 4) octets.
    ///
    /// # Errors
    /// Says what is malformed by RFC 7606 §7.2: an unknown segment type, an overrun or underrun, an empty segment;
    /// or AS 0 (RFC 7607 §2).
    pub(crate) fn decode(value: &[u8], width: usize) -> Result<Self, &'static str> {
        let mut path = AsPath::empty();
        let mut rest = value;
        while let [kind, count, tail @ ..] = rest {
            if SegmentKind::from_code(*kind).is_none() {
                return Err("unrecognized segment type");
            }
            if *count == 0 {
                return Err("segment of zero length");
            }
            let Some((octets, tail)) = tail.split_at_checked(usize::from(*count) * width) else {
                return Err("segment overruns the attribute");
            };
            path.wire.extend_from_slice(&[*kind, *count]);
            if width == 4 {
                path.wire.extend_from_slice(octets);
            } else {
                for pair in octets.chunks_exact(2) {
                    path.wire.extend_from_slice(&[0, 0, pair[0], pair[1]]);
                }
            }
            rest = tail;
        }
        if !rest.is_empty() {
            return Err("a single octet after the last segment");
        }
        if path.contains(Asn(0)) {
            return Err("AS 0");
        }
        Ok(path)
    }

    /// The true path of a route that came over a two-octet peer: this AS_PATH with its tail replaced by what AS4_PATH
    /// carried (RFC 6793 §4.2.3). An AS4_PATH with more AS numbers than the AS_PATH is ignored.
    #[must_use]
    pub(crate) fn merge_as4(&self, as4: &AsPath) -> AsPath {
        let (total, carried) = (self.counted(), as4.counted());
        if total < carried {
            return self.clone();
        }
        let mut keep = total - carried;
        let mut path = AsPath::empty();
        for segment in self.segments() {
            // Confederation segments count nothing: they stay as long as they lead or stand among what is kept.
            let confederation = segment.kind.is_confederation();
            if keep == 0 && !confederation {
                break;
            }
            let asns: SmallVec<[Asn; 16]> = segment.asns().collect();
            match segment.kind {
                SegmentKind::Sequence if asns.len() > keep => {
                    path.push_segment(segment.kind, &asns[..keep]);
                    keep = 0;
                }
                SegmentKind::Sequence => {
                    path.push_segment(segment.kind, &asns);
                    keep -= asns.len();
                }
                SegmentKind::Set => {
                    path.push_segment(segment.kind, &asns);
                    keep -= 1;
                }
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => {
                    path.push_segment(segment.kind, &asns)
                }
            }
        }
        path.join(as4)
    }

    /// How many AS numbers the merge of RFC 6793 §4.2.3 counts: as the decision process does.
    fn counted(&self) -> usize {
        self.length()
    }

    /// This path followed by another; two sequences that meet become one where they fit.
    fn join(mut self, tail: &AsPath) -> AsPath {
        let last = self.segments().last().filter(|s| s.kind == SegmentKind::Sequence).map(|s| s.asns().len());
        let mut segments = tail.segments();
        if let (Some(before), Some(first)) = (last, segments.next())
            && first.kind == SegmentKind::Sequence
            && before + first.asns().len() <= SEGMENT_MAX
        {
            let count_at = self.wire.len() - before * 4 - 1;
            self.wire[count_at] += first.asns().len() as u8;
            self.wire.extend_from_slice(first.octets);
            self.wire.extend_from_slice(segments.rest);
        } else {
            self.wire.extend_from_slice(&tail.wire);
        }
        self
    }
}

/// Iterator over the segments of an [`AsPath`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    /// The segments of what [`AsPath::as_octets`] gave.
    pub fn of(octets: &'a [u8]) -> Self {
        Segments { rest: octets }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let [kind, count, tail @ ..] = self.rest else { return None };
        let (octets, rest) = tail.split_at_checked(usize::from(*count) * 4)?;
        self.rest = rest;
        Some(Segment { kind: SegmentKind::from_code(*kind)?, octets })
    }
}

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, separator, close) = match self.kind {
            SegmentKind::Sequence => ("", " ", ""),
            SegmentKind::Set => ("{", ",", "}"),
            SegmentKind::ConfedSequence => ("(", " ", ")"),
            SegmentKind::ConfedSet => ("[", ",", "]"),
        };
        f.write_str(open)?;
        for (i, asn) in self.asns().enumerate() {
            write!(f, "{}{asn}", if i == 0 { "" } else { separator })?;
        }
        f.write_str(close)
    }
}

impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AsPath {
    /// `64601 64512 {1,2}`; confederation sequences in parentheses, their sets in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments().enumerate() {
            write!(f, "{}{segment}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[(SegmentKind, &[u32])]) -> AsPath {
        let mut path = AsPath::empty();
        for (kind, asns) in segments {
            path.push_segment(*kind, &asns.iter().copied().map(Asn).collect::<Vec<_>>());
        }
        path
    }

    use SegmentKind::{ConfedSequence, ConfedSet, Sequence, Set};

    #[test]
    fn rfc4271_9_1_2_2_a_set_counts_one_and_rfc5065_5_3_confederation_nothing() {
        assert_eq!(path(&[(Sequence, &[1, 2, 3]), (Set, &[4, 5])]).length(), 4);
        assert_eq!(
            path(&[(ConfedSequence, &[65001, 65002]), (ConfedSet, &[1]), (Sequence, &[1])]).length(),
            1
        );
        assert_eq!(AsPath::empty().length(), 0);
    }

    #[test]
    fn first_neighbour_and_origin() {
        let p = path(&[(Sequence, &[1, 2]), (Set, &[4, 5])]);
        assert_eq!((p.first_as(), p.neighbour_as(), p.origin_as()), (Some(Asn(1)), Some(Asn(1)), None));
        let p = path(&[(Set, &[4, 5]), (Sequence, &[1, 2])]);
        assert_eq!((p.first_as(), p.neighbour_as(), p.origin_as()), (None, None, Some(Asn(2))));
        let p = path(&[(ConfedSequence, &[9]), (Sequence, &[1, 2])]);
        assert_eq!((p.first_as(), p.neighbour_as()), (None, Some(Asn(1))));
    }

    #[test]
    fn rfc4271_5_1_2_prepend() {
        assert_eq!(path(&[(Sequence, &[2])]).prepend(Asn(1), 2).to_string(), "1 1 2");
        assert_eq!(AsPath::empty().prepend(Asn(1), 1).to_string(), "1");
        assert_eq!(AsPath::empty().prepend(Asn(1), 0), AsPath::empty());
        let p = path(&[(Set, &[2, 3])]).prepend(Asn(1), 1);
        assert_eq!(p.to_string(), "1 {2,3}");
        let full = AsPath::from_sequence((0..255).map(|_| Asn(7)));
        let p = full.prepend(Asn(1), 1);
        assert_eq!(p.segments().map(|s| s.asns().len()).collect::<Vec<_>>(), [1, 255]);
        assert_eq!(p.length(), 256);
    }

    #[test]
    fn loops_are_counted_in_every_segment() {
        let p = path(&[(Sequence, &[1, 2, 1]), (Set, &[1]), (ConfedSequence, &[1])]);
        assert_eq!(p.count(Asn(1)), 4);
        assert!(p.contains(Asn(2)) && !p.contains(Asn(3)));
    }

    #[test]
    fn rfc7606_7_2_malformed_paths() {
        assert!(AsPath::decode(&[2, 0], 4).is_err());
        assert!(AsPath::decode(&[5, 1, 0, 0, 0, 1], 4).is_err());
        assert!(AsPath::decode(&[2, 2, 0, 0, 0, 1], 4).is_err());
        assert!(AsPath::decode(&[2, 1, 0, 0, 0, 1, 2], 4).is_err());
        assert!(AsPath::decode(&[2, 1, 0, 0, 0, 0], 4).is_err());
        assert_eq!(AsPath::decode(&[2, 1, 0, 7], 2).unwrap(), path(&[(Sequence, &[7])]));
        assert_eq!(AsPath::decode(&[], 2).unwrap(), AsPath::empty());
    }

    #[test]
    fn rfc6793_4_2_3_merge() {
        let old = path(&[(Sequence, &[100, 23456, 23456, 200])]);
        let as4 = path(&[(Sequence, &[70000, 70001, 200])]);
        assert_eq!(old.merge_as4(&as4).to_string(), "100 70000 70001 200");
        assert_eq!(old.merge_as4(&as4).segments().count(), 1);
        let longer = path(&[(Sequence, &[1, 2, 3, 4, 5])]);
        assert_eq!(old.merge_as4(&longer), old);
        let old = path(&[(Sequence, &[100, 23456]), (Set, &[1, 2])]);
        let as4 = path(&[(Sequence, &[70000]), (Set, &[1, 70002])]);
        assert_eq!(old.merge_as4(&as4).to_string(), "100 70000 {1,70002}");
        let old = path(&[(ConfedSequence, &[65001]), (Sequence, &[100, 23456])]);
        let as4 = path(&[(Sequence, &[70000])]);
        assert_eq!(old.merge_as4(&as4).to_string(), "(65001) 100 70000");
    }

    #[test]
    fn size_stays_small() {
        assert!(size_of::<AsPath>() <= 48, "{}", size_of::<AsPath>());
    }
}
