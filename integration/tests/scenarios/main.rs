//! Scenarios: real daemons in network namespaces, each scenario in a lab of its own.
//!
//! They need root and the Debian packages of `make deps`; what is missing makes them fail and is named. A failing scenario prints
//! the end of every daemon's log; with `CAUSEWAY_LAB_KEEP=1` its lab stays up and the line that enters it is printed.

mod changes;
mod command_line;
mod fabric;
mod failures;
mod feeder;
mod interop;
mod kernel;
mod peer_views;
mod restarts;
mod runner;
mod scene;
mod topologies;
mod tunnels;
