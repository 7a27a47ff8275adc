//! What may bar a prefix. Pure.

/// Why there is no route for a prefix whatever its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// Nothing bars it.
    Open = 0,
    /// The guard refused it.
    Guard = 1,
    /// It names a group there is not.
    NoGroup = 2,
    /// There are too many.
    TooMany = 3,
}
