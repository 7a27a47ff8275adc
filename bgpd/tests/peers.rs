//! Peer tasks over real sockets on loopback: passwords, GTSM, who connects to whom, back pressure, last words.
//! The test is the speaker.

#[cfg(test)]
mod peers {
    mod authentication;
    mod flow;
    mod listening;
    pub mod rig;
}
