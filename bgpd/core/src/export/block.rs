//! A block of encoded messages that all members of a group share, and how it differs for some of them.
//!
//! Pure. The octets are made once; a member that is the origin of nothing in the block is handed the whole of it, an
//! origin is handed what lies around its own paths, with the withdrawals it is owed in their place.

use bytes::Bytes;

use super::adj_rib_out::Epoch;
use crate::event::PeerId;

/// How much is in some octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// UPDATE messages.
    pub updates: u32,
    /// Prefixes withdrawn by them.
    pub withdrawn: u32,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.updates += other.updates;
        self.withdrawn += other.withdrawn;
    }

    fn less(self, other: Counts) -> Counts {
        Counts { updates: self.updates - other.updates, withdrawn: self.withdrawn - other.withdrawn }
    }
}

/// Where one member's octets differ from those of the others.
#[derive(Clone, Debug)]
struct Exception {
    member: PeerId,
    /// The octets it is not sent.
    start: u32,
    end: u32,
    skipped: Counts,
    /// What it is sent instead.
    instead: Bytes,
    sent: Counts,
}

/// Encoded messages.
#[derive(Debug)]
pub(super) struct Block {
    /// Everything in it was told in this epoch.
    pub epoch: Epoch,
    bytes: Bytes,
    counts: Counts,
    /// By member, then by place.
    exceptions: Vec<Exception>,
}

impl Block {
    /// Octets shared.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends what this member is sent of the block.
    pub fn hand_out(&self, member: PeerId, out: &mut Vec<Bytes>) -> Counts {
        let first = self.exceptions.partition_point(|exception| exception.member < member);
        let mine = self.exceptions[first..].iter().take_while(|exception| exception.member == member);
        let mut push = |bytes: Bytes| {
            if !bytes.is_empty() {
                out.push(bytes);
            }
        };
        let (mut counts, mut at) = (self.counts, 0);
        for exception in mine {
            push(self.bytes.slice(at..exception.start as usize));
            push(exception.instead.clone());
            at = exception.end as usize;
            counts = counts.less(exception.skipped);
            counts.add(exception.sent);
        }
        push(self.bytes.slice(at..));
        counts
    }
}

/// Builds a block; its buffers are used again for the next.
#[derive(Default)]
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    counts: Counts,
    exceptions: Vec<Exception>,
}

impl BlockBuilder {
    /// Octets so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends messages that `write` makes for every member but `except`, which is sent `instead` in their place.
    pub fn append(
        &mut self,
        except: Option<PeerId>,
        instead: (&[u8], Counts),
        write: impl FnOnce(&mut Vec<u8>) -> Counts,
    ) {
        let start = self.bytes.len() as u32;
        let counts = write(&mut self.bytes);
        self.counts.add(counts);
        let end = self.bytes.len() as u32;
        if let Some(member) = except
            && (start != end || !instead.0.is_empty())
        {
            let (instead, sent) = (Bytes::copy_from_slice(instead.0), instead.1);
            self.exceptions.push(Exception { member, start, end, skipped: counts, instead, sent });
        }
    }

    /// The block, or `None` where there is nothing in it for anybody.
    pub fn finish(&mut self, epoch: Epoch) -> Option<Block> {
        if self.bytes.is_empty() && self.exceptions.is_empty() {
            return None;
        }
        let mut exceptions = std::mem::take(&mut self.exceptions);
        exceptions.sort_by_key(|exception| (exception.member, exception.start));
        let block = Block {
            epoch,
            bytes: Bytes::copy_from_slice(&self.bytes),
            counts: std::mem::take(&mut self.counts),
            exceptions,
        };
        self.bytes.clear();
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(updates: u32, withdrawn: u32) -> Counts {
        Counts { updates, withdrawn }
    }

    fn handed(block: &Block, member: u32) -> (Vec<u8>, Counts) {
        let mut out = Vec::new();
        let counts = block.hand_out(PeerId(member), &mut out);
        (out.concat(), counts)
    }

    #[test]
    fn each_member_gets_its_own_view_of_shared_octets() {
        let mut builder = BlockBuilder::default();
        let mut append = |except: Option<u32>, instead: &'static [u8], sent, text: &'static [u8]| {
            builder.append(except.map(PeerId), (instead, sent), |out| {
                out.extend_from_slice(text);
                counts(1, 0)
            });
        };
        append(Some(2), b"", counts(0, 0), b"aa");
        append(Some(1), b"w", counts(1, 3), b"bb");
        append(None, b"", counts(0, 0), b"cc");
        append(Some(2), b"v", counts(1, 1), b"dd");
        let block = builder.finish(1).unwrap();
        assert_eq!(handed(&block, 3), (b"aabbccdd".to_vec(), counts(4, 0)));
        assert_eq!(handed(&block, 1), (b"aawccdd".to_vec(), counts(4, 3)));
        assert_eq!(handed(&block, 2), (b"bbccv".to_vec(), counts(3, 1)));
        assert!(builder.finish(1).is_none());
    }

    #[test]
    fn octets_for_one_member_alone() {
        let mut builder = BlockBuilder::default();
        builder.append(Some(PeerId(1)), (b"x", counts(1, 0)), |_| Counts::default());
        let block = builder.finish(1).unwrap();
        assert_eq!(handed(&block, 1), (b"x".to_vec(), counts(1, 0)));
        assert_eq!(handed(&block, 2), (vec![], counts(0, 0)));
    }

    #[test]
    fn members_share_the_octets() {
        let mut builder = BlockBuilder::default();
        builder.append(None, (b"", Counts::default()), |out| {
            out.extend_from_slice(b"abc");
            counts(1, 0)
        });
        let block = builder.finish(1).unwrap();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        block.hand_out(PeerId(1), &mut one);
        block.hand_out(PeerId(2), &mut two);
        assert_eq!(one[0].as_ptr(), two[0].as_ptr());
    }
}
