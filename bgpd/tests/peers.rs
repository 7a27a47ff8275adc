//! Peer tasks over real sockets on loopback: passwords, GTSM, who connects to whom, back pressure, last words.
//! The test is the speaker, but in `reflection` and `unruly`, where the real one runs.

#[cfg(test)]
mod peers {
    mod authentication;
    mod flow;
    mod listening;
    mod reflection;
    pub mod rig;
    mod unruly;
}
