//! The lab: containerlab topologies built of network namespaces on this machine, with real routers and our own binaries in them.
//!
//! `topology` reads the file, `image` decides what runs in a node, `init` and `namespace` make and enter nodes, `wire_up` links
//! them, `lab` ties it together, `pod` adds pods through the CNI plugin, `view` asks every daemon what it sees, `capture` sees what
//! is on the wire, `guest` boots another kernel where this machine's lacks something. See `DESIGN.md`.

pub mod capture;
mod daemon;
pub mod demo;
pub mod guest;
pub mod image;
pub mod init;
pub mod lab;
pub mod namespace;
pub mod ping;
pub mod pod;
pub mod process;
pub mod run;
pub mod state;
pub mod topology;
pub mod transfer;
pub mod until;
pub mod view;
pub mod wire_up;
