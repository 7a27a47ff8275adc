//! The transition table of the session machine. Pure. RFC 4271 §8, RFC 6608 (subcodes of FSM errors).
//!
//! One function, [`transition`], says for every pair of state and event what is to be done and which state follows;
//! `Session` carries it out. A peer runs the table once for its attempts to get a connection (Idle, Connect, Active)
//! and once for each connection it has (OpenSent, OpenConfirm, Established), which is the RFC's "one FSM per
//! connection" (§8.2.1).
//!
//! Where the table departs from the letter of §8.2.2, and why:
//! - A failed attempt in Connect leads to Active, not Idle: Idle would refuse the peer's own attempt. All speakers in
//!   use do this.
//! - In Active and Connect an accepted connection gets a machine of its own; the attempt in flight goes on until the
//!   accepted connection has received an OPEN, and collision detection (§6.8) picks one.
//! - A NOTIFICATION never gets one in answer, also where the text says "any other event" (§6.4).
//! - Errors of the message header in OpenConfirm and Established are reported with their own code (§6.1) rather than
//!   as FSM errors.
//! - DelayOpenTimer is not used (it is optional, §8.1.1), so its events change nothing.

use std::fmt;

use causeway_bgp_wire::FsmState;

/// State of the session machine (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is tried and nothing accepted.
    Idle,
    /// A TCP connection is being opened.
    Connect,
    /// Waiting: for the peer to connect, or to try again.
    Active,
    /// TCP is there and our OPEN is sent.
    OpenSent,
    /// The peer's OPEN is accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl State {
    /// All states, in order.
    pub const ALL: [State; 6] =
        [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm, State::Established];

    /// The RFC's name.
    pub const fn name(self) -> &'static str {
        match self {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An event of RFC 4271 §8.1, with its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// 1 and 3: start, by the operator or by itself; connections are opened.
    Start,
    /// 4 and 5: start, but only wait for the peer.
    StartPassive,
    /// 2 and 8: stop, by the operator or by the system, with the NOTIFICATION that goes with the reason.
    Stop,
    /// 9.
    ConnectRetryTimerExpires,
    /// 10.
    HoldTimerExpires,
    /// 11.
    KeepaliveTimerExpires,
    /// 12: not in use.
    DelayOpenTimerExpires,
    /// 13: the pause after an error is over; 6 and 7 (start with damping) come down to it.
    IdleHoldTimerExpires,
    /// 14: a connection request from the peer was seen; only its completion (17) counts.
    TcpConnectionValid,
    /// 15: a connection request that is not the peer's; the listener turned it away.
    TcpRequestInvalid,
    /// 16: our attempt succeeded.
    TcpRequestAcked,
    /// 17: the peer's attempt succeeded.
    TcpConnectionConfirmed,
    /// 18.
    TcpConnectionFails,
    /// 19: a valid OPEN.
    BgpOpen,
    /// 20: a valid OPEN while DelayOpenTimer runs; it never runs.
    BgpOpenWithDelayOpenTimer,
    /// 21.
    BgpHeaderErr,
    /// 22: an OPEN with an error, or one that cannot be agreed with.
    BgpOpenMsgErr,
    /// 23: this connection lost a collision.
    OpenCollisionDump,
    /// 24: NOTIFICATION with a version error.
    NotifMsgVerErr,
    /// 25: any other NOTIFICATION.
    NotifMsg,
    /// 26.
    KeepAliveMsg,
    /// 27.
    UpdateMsg,
    /// 28: an UPDATE with an error that ends the session.
    UpdateMsgErr,
    /// A ROUTE-REFRESH (RFC 2918), for which the RFC has no number.
    RouteRefreshMsg,
}

impl Event {
    /// All events, in order.
    pub const ALL: [Event; 24] = [
        Event::Start,
        Event::StartPassive,
        Event::Stop,
        Event::ConnectRetryTimerExpires,
        Event::HoldTimerExpires,
        Event::KeepaliveTimerExpires,
        Event::DelayOpenTimerExpires,
        Event::IdleHoldTimerExpires,
        Event::TcpConnectionValid,
        Event::TcpRequestInvalid,
        Event::TcpRequestAcked,
        Event::TcpConnectionConfirmed,
        Event::TcpConnectionFails,
        Event::BgpOpen,
        Event::BgpOpenWithDelayOpenTimer,
        Event::BgpHeaderErr,
        Event::BgpOpenMsgErr,
        Event::OpenCollisionDump,
        Event::NotifMsgVerErr,
        Event::NotifMsg,
        Event::KeepAliveMsg,
        Event::UpdateMsg,
        Event::UpdateMsgErr,
        Event::RouteRefreshMsg,
    ];
}

/// What a transition asks to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Open a TCP connection, giving up one being opened, and start ConnectRetryTimer.
    Dial,
    /// Start ConnectRetryTimer and wait; a passive peer waits without it.
    Wait,
    /// Send OPEN; HoldTimer to its large value.
    SendOpen,
    /// The OPEN is good: answer with KEEPALIVE, start KeepaliveTimer and HoldTimer as negotiated.
    Confirm,
    /// The session is up.
    Establish,
    /// Restart HoldTimer.
    RestartHold,
    /// Send KEEPALIVE and restart KeepaliveTimer.
    SendKeepalive,
    /// Restart HoldTimer and hand the UPDATE on.
    DeliverUpdate,
    /// Hand the ROUTE-REFRESH on.
    DeliverRefresh,
    /// End the connection, or the attempts to get one.
    End(Farewell),
}

/// What the peer is told when a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing: there is no connection, it is lost, or the peer itself has ended it.
    Silent,
    /// The NOTIFICATION that comes with the event: of the stop, or of the error found.
    Given,
    /// Hold Timer Expired.
    HoldTimerExpired,
    /// Finite State Machine Error with the subcode of this state (RFC 6608).
    Unexpected(FsmState),
    /// Cease, Connection Collision Resolution.
    Collision,
}

/// What follows from an event in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What is to be done.
    pub action: Action,
    /// The state afterwards.
    pub next: State,
}

/// What follows from `event` in `state` (RFC 4271 §8.2.2).
pub const fn transition(state: State, event: Event) -> Transition {
    use Action::*;
    use Event as E;
    use State::*;
    let (action, next) = match (state, event) {
        (Idle, E::Start | E::IdleHoldTimerExpires) => (Dial, Connect),
        (Idle, E::StartPassive) => (Wait, Active),
        // Idle ignores everything else and refuses connections.
        (Idle, _) => (Nothing, Idle),

        (_, E::Start | E::StartPassive) => (Nothing, state),
        (Connect | Active, E::Stop) => (End(Farewell::Silent), Idle),
        (_, E::Stop) => (End(Farewell::Given), Idle),
        // Optional events of timers not in use, and of requests that only count once they are connections.
        (_, E::DelayOpenTimerExpires | E::IdleHoldTimerExpires) => (Nothing, state),
        (_, E::TcpConnectionValid | E::TcpRequestInvalid) => (Nothing, state),
        (_, E::BgpOpenWithDelayOpenTimer) => (Nothing, state),

        (Connect | Active, E::ConnectRetryTimerExpires) => (Dial, Connect),
        (Connect | Active, E::TcpRequestAcked | E::TcpConnectionConfirmed) => (SendOpen, OpenSent),
        (Connect | Active, E::TcpConnectionFails) => (Wait, Active),
        // No message, and no timer of a connection, can come where there is no connection.
        (Connect | Active, _) => (End(Farewell::Silent), Idle),

        // ConnectRetryTimer belongs to the attempts, and another connection has a machine of its own.
        (_, E::ConnectRetryTimerExpires) => (Nothing, state),
        (_, E::TcpRequestAcked | E::TcpConnectionConfirmed) => (Nothing, state),
        (_, E::HoldTimerExpires) => (End(Farewell::HoldTimerExpired), Idle),
        (_, E::OpenCollisionDump) => (End(Farewell::Collision), Idle),
        (_, E::BgpHeaderErr | E::BgpOpenMsgErr) => (End(Farewell::Given), Idle),
        (_, E::NotifMsgVerErr | E::NotifMsg) => (End(Farewell::Silent), Idle),

        (OpenSent, E::TcpConnectionFails) => (End(Farewell::Silent), Active),
        (OpenSent, E::BgpOpen) => (Confirm, OpenConfirm),
        // KeepaliveTimer does not run yet.
        (OpenSent, E::KeepaliveTimerExpires) => (Nothing, OpenSent),
        (OpenSent, E::KeepAliveMsg | E::UpdateMsg | E::UpdateMsgErr | E::RouteRefreshMsg) => {
            (End(Farewell::Unexpected(FsmState::OpenSent)), Idle)
        }

        (OpenConfirm | Established, E::TcpConnectionFails) => (End(Farewell::Silent), Idle),
        (OpenConfirm | Established, E::KeepaliveTimerExpires) => (SendKeepalive, state),
        (OpenConfirm, E::KeepAliveMsg) => (Establish, Established),
        (OpenConfirm, E::BgpOpen | E::UpdateMsg | E::UpdateMsgErr | E::RouteRefreshMsg) => {
            (End(Farewell::Unexpected(FsmState::OpenConfirm)), Idle)
        }

        (Established, E::KeepAliveMsg) => (RestartHold, Established),
        (Established, E::UpdateMsg) => (DeliverUpdate, Established),
        (Established, E::RouteRefreshMsg) => (DeliverRefresh, Established),
        (Established, E::UpdateMsgErr) => (End(Farewell::Given), Idle),
        (Established, E::BgpOpen) => (End(Farewell::Unexpected(FsmState::Established)), Idle),
    };
    Transition { action, next }
}
