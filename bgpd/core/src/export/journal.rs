//! The journal of a group: blocks of encoded messages in order, which members read at their own pace.
//!
//! Owner: the group. Pure. Every reader stands before one block or at the end; a block that nobody stands at or before
//! is dropped, so the journal is as long as its slowest reader is behind. The bound on that is the group's.

use std::collections::VecDeque;
use std::sync::Arc;

use super::block::Block;

/// A reader's place: counts blocks since the group began.
pub(super) type Position = u64;

struct Node {
    block: Arc<Block>,
    /// Readers that have yet to read this block and have read the one before.
    readers: u32,
}

/// Blocks and how many readers stand where.
#[derive(Default)]
pub(super) struct Journal {
    nodes: VecDeque<Node>,
    base: Position,
    at_end: u32,
    bytes: usize,
}

impl Journal {
    /// The place after the last block.
    pub fn end(&self) -> Position {
        self.base + self.nodes.len() as u64
    }

    /// The oldest block.
    pub fn front(&self) -> Option<&Arc<Block>> {
        self.nodes.front().map(|node| &node.block)
    }

    /// Octets held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many blocks are held.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no reader.
    pub fn is_unread(&self) -> bool {
        self.at_end == 0 && self.nodes.is_empty()
    }

    /// A new reader at the end.
    pub fn join(&mut self) -> Position {
        self.at_end += 1;
        self.end()
    }

    /// A reader goes.
    pub fn leave(&mut self, position: Position) {
        *self.readers(position) -= 1;
        self.trim();
    }

    /// The block a reader is to read, `None` at the end.
    pub fn get(&self, position: Position) -> Option<Arc<Block>> {
        let index = position.checked_sub(self.base)?;
        self.nodes.get(index as usize).map(|node| node.block.clone())
    }

    /// A reader has read its block. Returns its new place.
    pub fn advance(&mut self, position: Position) -> Position {
        *self.readers(position) -= 1;
        *self.readers(position + 1) += 1;
        self.trim();
        position + 1
    }

    /// Appends a block; where nobody reads, it is dropped at once.
    pub fn push(&mut self, block: Arc<Block>) {
        self.bytes += Self::weight(&block);
        self.nodes.push_back(Node { block, readers: std::mem::take(&mut self.at_end) });
        self.trim();
    }

    /// Where the journal would have to begin to hold no more than `bytes`.
    pub fn start_for(&self, bytes: usize) -> Position {
        let mut left = self.bytes;
        let excess = self.nodes.iter().take_while(|node| {
            let over = left > bytes;
            left -= Self::weight(&node.block);
            over
        });
        self.base + excess.count() as u64
    }

    /// Drops what lies before `start`, read or not: a reader that stands there has fallen out and is the caller's to
    /// look after.
    pub fn cut(&mut self, start: Position) {
        while self.base < start && !self.nodes.is_empty() {
            self.drop_front();
        }
        self.trim();
    }

    /// What a block costs: its octets and its own size.
    fn weight(block: &Block) -> usize {
        block.len() + 128
    }

    fn readers(&mut self, position: Position) -> &mut u32 {
        let index = (position - self.base) as usize;
        match self.nodes.get_mut(index) {
            Some(node) => &mut node.readers,
            None => &mut self.at_end,
        }
    }

    fn trim(&mut self) {
        while self.nodes.front().is_some_and(|node| node.readers == 0) {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        if let Some(node) = self.nodes.pop_front() {
            self.base += 1;
            self.bytes -= Self::weight(&node.block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{BlockBuilder, Counts};
    use super::*;

    fn block() -> Arc<Block> {
        let mut builder = BlockBuilder::default();
        builder.append(None, (b"", Counts::default()), |out| {
            out.push(0);
            Counts::default()
        });
        Arc::new(builder.finish(0).unwrap())
    }

    #[test]
    fn it_is_as_long_as_its_slowest_reader_is_behind() {
        let mut journal = Journal::default();
        journal.push(block());
        assert_eq!((journal.len(), journal.end()), (0, 1), "nobody reads");
        let (mut fast, mut slow) = (journal.join(), journal.join());
        for _ in 0..3 {
            journal.push(block());
        }
        for _ in 0..3 {
            assert!(journal.get(fast).is_some());
            fast = journal.advance(fast);
        }
        assert!(journal.get(fast).is_none());
        assert_eq!(journal.len(), 3);
        slow = journal.advance(slow);
        assert_eq!(journal.len(), 2);
        let late = journal.join();
        journal.leave(slow);
        assert_eq!((journal.len(), journal.bytes()), (0, 0));
        journal.push(block());
        assert!(journal.get(fast).is_some() && journal.get(late).is_some());
    }

    #[test]
    fn a_reader_that_is_cut_off_lies_before_the_start() {
        let mut journal = Journal::default();
        let position = journal.join();
        journal.push(block());
        journal.push(block());
        let late = journal.join();
        journal.push(block());
        assert_eq!(journal.start_for(0), 3);
        let start = journal.start_for(journal.bytes() - 1);
        assert_eq!(start, 1);
        journal.cut(start);
        assert!(journal.get(position).is_none());
        assert!(journal.get(late).is_some());
        assert_eq!(journal.len(), 1, "what nobody is left to read goes as well");
    }
}
