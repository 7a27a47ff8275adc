//! Two sessions and a simulated network under a virtual clock: simultaneous opening in every order of events, and
//! connections that are cut at random (RFC 4271 §6.8).

use std::collections::VecDeque;

use super::*;

/// What a queue of the network carries to one end of a connection.
#[derive(Clone, Debug)]
enum Packet {
    /// To the end that opened: it is there. To the other: somebody connected.
    Established,
    Data(Vec<u8>),
    Closed,
}

/// One TCP connection: `ends[0]` opened it.
#[derive(Debug)]
struct Wire {
    speakers: [usize; 2],
    /// The number each end knows it by; the accepting one learns it late.
    ids: [Option<ConnectionId>; 2],
    /// What is on its way to each end.
    queues: [VecDeque<Packet>; 2],
    closed: [bool; 2],
}

struct Network {
    now: Instant,
    sessions: [Session; 2],
    wires: Vec<Wire>,
    dials: usize,
    up: [Option<(usize, ConnectionId)>; 2],
    ups: usize,
}

impl Network {
    /// Speaker 0 has the identifier 192.0.2.10, speaker 1 the one given.
    fn new(other_identifier: Ipv4Addr, passive: [bool; 2], seed: u64) -> Self {
        let now = Instant::now();
        let ours = SessionConfig { passive: passive[0], ..config() };
        let theirs = SessionConfig {
            local_as: PEER_AS,
            remote_as: RemoteAs::Number(OUR_AS),
            router_id: other_identifier,
            passive: passive[1],
            ..config()
        };
        let session = |config, seed| Session::new(now, Arc::new(config), RestartMarks::default(), seed);
        let sessions = [session(ours, seed), session(theirs, seed + 1)];
        let mut network = Network { now, sessions, wires: Vec::new(), dials: 0, up: [None; 2], ups: 0 };
        for speaker in 0..2 {
            network.sessions[speaker].handle(now, SessionInput::Command(Command::Start));
            network.carry_out(speaker, None);
        }
        network
    }

    fn wire_of(&self, speaker: usize, id: ConnectionId) -> Option<(usize, usize)> {
        self.wires.iter().enumerate().find_map(|(index, wire)| {
            let end = (0..2).find(|e| wire.speakers[*e] == speaker && wire.ids[*e] == Some(id))?;
            Some((index, end))
        })
    }

    fn send(&mut self, wire: usize, from_end: usize, packet: Packet) {
        if !self.wires[wire].closed[from_end] {
            self.wires[wire].queues[1 - from_end].push_back(packet);
        }
    }

    /// `accepting`: the wire whose connection the session was just told of.
    fn carry_out(&mut self, speaker: usize, accepting: Option<usize>) {
        while let Some(output) = self.sessions[speaker].poll_output() {
            match output {
                SessionOutput::Connect(id) => {
                    self.dials += 1;
                    self.wires.push(Wire {
                        speakers: [speaker, 1 - speaker],
                        ids: [Some(id), None],
                        queues: [
                            VecDeque::from([Packet::Established]),
                            VecDeque::from([Packet::Established]),
                        ],
                        closed: [false; 2],
                    });
                }
                SessionOutput::Adopt(id) => self.wires[accepting.unwrap()].ids[1] = Some(id),
                SessionOutput::Refuse => {
                    let wire = accepting.unwrap();
                    self.send(wire, 1, Packet::Closed);
                    self.wires[wire].closed[1] = true;
                }
                SessionOutput::Send { connection, octets } => {
                    let (wire, end) = self.wire_of(speaker, connection).unwrap();
                    self.send(wire, end, Packet::Data(octets));
                }
                SessionOutput::Close(id) => {
                    if let Some((wire, end)) = self.wire_of(speaker, id) {
                        self.send(wire, end, Packet::Closed);
                        self.wires[wire].closed[end] = true;
                        self.wires[wire].queues[end].clear();
                    }
                }
                SessionOutput::Up { connection, .. } => {
                    let (wire, _) = self.wire_of(speaker, connection).unwrap();
                    assert_eq!(self.up[speaker], None, "one session at a time");
                    self.up[speaker] = Some((wire, connection));
                    self.ups += 1;
                }
                SessionOutput::Down(_) => self.up[speaker] = None,
                SessionOutput::StateChanged { .. }
                | SessionOutput::Updates(_)
                | SessionOutput::Refresh { .. } => {}
            }
        }
    }

    /// The ends for which something is on its way.
    fn choices(&self) -> Vec<(usize, usize)> {
        let ends = (0..self.wires.len()).flat_map(|wire| [(wire, 0), (wire, 1)]);
        ends.filter(|(wire, end)| !self.wires[*wire].queues[*end].is_empty()).collect()
    }

    fn deliver(&mut self, (wire, end): (usize, usize)) {
        let Some(packet) = self.wires[wire].queues[end].pop_front() else { return };
        if self.wires[wire].closed[end] {
            return;
        }
        let speaker = self.wires[wire].speakers[end];
        let (now, id) = (self.now, self.wires[wire].ids[end]);
        let session = &mut self.sessions[speaker];
        match (packet, id) {
            (Packet::Established, Some(connection)) => {
                session.handle(now, SessionInput::Connected { connection, addresses: addresses() });
            }
            (Packet::Established, None) => session.handle(now, SessionInput::Accepted(addresses())),
            (Packet::Data(octets), Some(id)) => {
                session.receive(now, id, &octets);
            }
            (Packet::Closed, Some(connection)) => {
                let reason = "closed".to_owned();
                session.handle(now, SessionInput::Lost { connection, reason });
                self.wires[wire].closed[end] = true;
            }
            (packet, None) => panic!("{packet:?} before the connection"),
        }
        self.carry_out(speaker, Some(wire));
    }

    /// Delivers everything in order, then lets time pass, doing what is due.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while let Some(choice) = self.choices().first().copied() {
                self.deliver(choice);
            }
            let due = self.sessions.iter().filter_map(Session::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            for speaker in 0..2 {
                self.sessions[speaker].handle_timeout(self.now);
                self.carry_out(speaker, None);
            }
        }
        self.now = end;
    }

    fn assert_one_session(&self, context: &str) {
        assert_eq!(self.sessions[0].state(), State::Established, "{context}");
        assert_eq!(self.sessions[1].state(), State::Established, "{context}");
        let [Some((a, _)), Some((b, _))] = self.up else { panic!("{context}: {:?}", self.up) };
        assert_eq!(a, b, "{context}: both ends are Established on the same connection");
        let open = self.wires.iter().filter(|w| w.closed == [false; 2]).count();
        assert_eq!(open, 1, "{context}: no other connection is left");
    }

    fn cut(&mut self, wire: usize) {
        for end in 0..2 {
            self.wires[wire].queues[end].clear();
            if !self.wires[wire].closed[end] && self.wires[wire].ids[end].is_some() {
                self.wires[wire].queues[end].push_back(Packet::Closed);
            } else {
                self.wires[wire].closed[end] = true;
            }
        }
    }
}

/// Runs the simulation once for every sequence of choices, by depth-first search over what was open at each step.
fn every_interleaving(start: impl Fn() -> Network, check: impl Fn(&mut Network)) -> usize {
    let mut path: Vec<(usize, usize)> = Vec::new();
    for run in 1.. {
        let mut network = start();
        let mut step = 0;
        loop {
            let choices = network.choices();
            if choices.is_empty() {
                break;
            }
            if step == path.len() {
                path.push((0, choices.len()));
            }
            network.deliver(choices[path[step].0]);
            step += 1;
            assert!(step < 200, "goes quiet");
        }
        check(&mut network);
        while path.last().is_some_and(|(taken, of)| taken + 1 == *of) {
            path.pop();
        }
        match path.last_mut() {
            Some((taken, _)) => *taken += 1,
            None => return run,
        }
    }
    unreachable!("the loop above ends")
}

#[test]
fn rfc4271_6_8_simultaneous_open_in_every_order_ends_with_one_session_at_once() {
    for other in [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 200), Ipv4Addr::new(192, 0, 2, 10)] {
        let runs = every_interleaving(
            || Network::new(other, [false; 2], 1),
            |network| {
                // Only a KEEPALIVE kept back may still be due.
                network.run(seconds(2));
                network.assert_one_session("after two seconds");
                assert!(network.dials <= 2, "nobody had to try again");
                assert_eq!(network.ups, 2, "no session went up only to fall");
            },
        );
        assert!(runs > 1000, "only {runs} orders were tried");
    }
}

#[test]
fn a_passive_end_gets_its_session_in_every_order() {
    for passive in [[true, false], [false, true]] {
        every_interleaving(
            || Network::new(Ipv4Addr::new(192, 0, 2, 1), passive, 1),
            |network| {
                network.assert_one_session("with one passive end");
                assert_eq!(network.dials, 1);
            },
        );
    }
}

#[test]
fn connections_cut_at_random_come_back_to_one_session() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let other = Ipv4Addr::new(192, 0, 2, rng.u8(1..=250));
        let mut network = Network::new(other, [false; 2], seed);
        for _ in 0..rng.usize(10..60) {
            match (network.choices().as_slice(), rng.u8(..8)) {
                ([], _) | (_, 0) => network.run(Duration::from_millis(rng.u64(..3000))),
                (_, 1) => {
                    let wire = rng.usize(..network.wires.len());
                    network.cut(wire);
                }
                (choices, _) => {
                    let choice = choices[rng.usize(..choices.len())];
                    network.deliver(choice);
                }
            }
        }
        network.run(seconds(120));
        network.assert_one_session(&format!("seed {seed}"));
    }
}

#[test]
fn a_quiet_session_lives_on_keepalives() {
    let mut network = Network::new(Ipv4Addr::new(192, 0, 2, 1), [false; 2], 3);
    network.run(seconds(3600));
    network.assert_one_session("after an hour");
    assert_eq!(network.ups, 2, "it never fell");
}
