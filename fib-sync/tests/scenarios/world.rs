//! The engine over the kernel in memory, under a virtual clock, and the ways things go wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use causeway_api::fib::{Command, Event, Family, GroupMember, NextHop as BgpNextHop, RouteState};
use causeway_fib_sync::config::{Allowed, Config, Match};
use causeway_fib_sync::engine::{Engine, FULL_CHECK};
use causeway_fib_sync::local::Pod;
use causeway_kernel::mock::{Failures, MockKernel};
use causeway_kernel::route::MAIN_TABLE;
use causeway_kernel::{Family as KernelFamily, Kernel, NextHop, Route};
use ipnetwork::IpNetwork;
use nix::errno::Errno;

pub const RESTART: Duration = Duration::from_secs(10_000);

pub fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn config() -> Config {
    let all = |cidr: &str, max| Allowed { cidr: network(cidr), by: Match::In, min: 0, max };
    Config {
        addresses: vec![network("192.0.2.1/24")],
        own_blocks: vec![network("10.244.1.0/24")],
        allowed: vec![all("10.0.0.0/8", 32), all("fd00::/16", 128)],
        restart_time: RESTART,
        ..Config::empty("a")
    }
}

/// The ways things go wrong.
pub fn failures() -> Vec<(&'static str, Failures)> {
    let none = Failures::default();
    vec![
        ("nothing fails", none.clone()),
        (
            "every third change is refused for a while",
            Failures { refuse: Some((3, Errno::ENOMEM, 25)), ..none.clone() },
        ),
        (
            "every change is refused for a while",
            Failures { refuse: Some((1, Errno::EPERM, 200)), ..none.clone() },
        ),
        (
            "every second operation on objects and devices is refused for a while",
            Failures { refuse_operations: Some((2, Errno::ENOMEM, 15)), ..none.clone() },
        ),
        ("operations on objects and devices are lost", Failures { lose_operations: 6, ..none.clone() }),
        ("answers are lost", Failures { lose_answers: 6, ..none.clone() }),
        ("dumps are interrupted", Failures { interrupt_dumps: 7, ..none.clone() }),
        ("hints are lost", Failures { lose_hints: true, ..none.clone() }),
        ("hints overrun", Failures { overrun_hints: true, ..none.clone() }),
        (
            "everything at once",
            Failures {
                refuse: Some((2, Errno::ENETUNREACH, 30)),
                lose_answers: 3,
                interrupt_dumps: 5,
                lose_hints: true,
                ..none
            },
        ),
    ]
}

pub struct World {
    pub kernel: MockKernel,
    pub engine: Engine,
    pub now: Instant,
    pub failures: Failures,
    pub generation: u64,
    pub events: Vec<Event>,
    pub objects: bool,
}

impl World {
    pub fn new(failures: &Failures, objects: bool) -> World {
        World::with(failures, objects, config())
    }

    pub fn with(failures: &Failures, objects: bool, config: Config) -> World {
        let mut kernel = MockKernel::new();
        kernel.add_link(2, "up0", &[network("192.0.2.1/24"), network("2001:db8:a::1/64")]);
        kernel.add_link(3, "up1", &[network("198.51.100.1/24"), network("2001:db8:b::1/64")]);
        let now = Instant::now();
        let engine = Engine::new(config, objects, now);
        let failures = failures.clone();
        let mut world = World { kernel, engine, now, failures, generation: 0, events: Vec::new(), objects };
        world.settle();
        world
    }

    /// Lets what was asked for happen, with failures first and without them in the end, until nothing is left to do.
    pub fn settle(&mut self) {
        self.kernel.failures = self.failures.clone();
        self.run(2 * FULL_CHECK);
        self.kernel.failures = Failures::default();
        self.run(2 * FULL_CHECK);
        let written = (self.kernel.written.len(), self.kernel.operations.len());
        self.run(2 * FULL_CHECK);
        let now = (self.kernel.written.len(), self.kernel.operations.len());
        assert_eq!(now, written, "a check that finds nothing wrong writes nothing");
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while self.now < end {
            for hint in self.kernel.take_hints() {
                self.engine.hint(&hint);
            }
            let more = self.engine.step(&mut self.kernel, self.now);
            self.events.extend(self.engine.take_events());
            steps += 1;
            assert!(steps < 2_000, "it does not come to rest");
            if !more {
                let next = self.engine.deadline().unwrap();
                self.now = next.max(self.now + Duration::from_micros(1)).min(end);
            }
        }
    }

    pub fn configure(&mut self, config: Config) {
        self.engine.tick(self.now);
        self.engine.configure(config);
    }

    pub fn set_pods(&mut self, pods: Vec<Pod>) {
        self.engine.tick(self.now);
        self.engine.set_pods(pods);
    }

    pub fn connect(&mut self) {
        self.engine.connect();
        self.send(Command::SnapshotBegin);
    }

    pub fn send(&mut self, command: Command) {
        self.engine.tick(self.now);
        self.engine.command(command);
    }

    pub fn group(&mut self, id: u32, next_hops: &[&str]) {
        let members =
            next_hops.iter().map(|next_hop| GroupMember::plain(BgpNextHop::global(ip(next_hop)))).collect();
        self.send(Command::Group { id, members, backups: Vec::new() });
    }

    pub fn route(&mut self, prefix: &str, group: u32) {
        self.generation += 1;
        self.send(Command::Route { prefix: network(prefix), group, generation: self.generation });
    }

    pub fn withdraw(&mut self, prefix: &str) {
        self.generation += 1;
        self.send(Command::Withdraw { prefix: network(prefix), generation: self.generation });
    }

    pub fn end_of_snapshot(&mut self) {
        for family in Family::ALL {
            self.send(Command::EndOfSnapshot { family });
        }
    }

    /// The kernel has exactly these routes of ours besides the own block's.
    #[track_caller]
    pub fn expect(&self, routes: &[Route]) {
        let mut expected: Vec<Route> = routes.to_vec();
        expected.push(Route::unreachable(network("10.244.1.0/24")));
        expected.sort_by_key(|route| route.key);
        assert_eq!(self.of_protocol(179), expected);
    }

    /// The routes of a protocol number with the next hops they come to, by object or by themselves.
    pub fn of_protocol(&self, protocol: u8) -> Vec<Route> {
        let mut kernel = self.kernel.clone();
        kernel.failures = Failures::default();
        let mut routes = kernel.routes(KernelFamily::Ipv4, MAIN_TABLE).unwrap();
        routes.extend(kernel.routes(KernelFamily::Ipv6, MAIN_TABLE).unwrap());
        routes.retain(|route| route.protocol == protocol);
        routes.sort_by_key(|route| route.key);
        for route in &mut routes {
            assert!(self.objects || route.nexthop_id.is_none(), "{route:?} names an object");
            route.nexthop_id = None;
        }
        routes
    }

    /// What bgpd was told last about each prefix.
    pub fn told(&self) -> BTreeMap<IpNetwork, RouteState> {
        let mut told = BTreeMap::new();
        for event in &self.events {
            if let Event::Status { prefix, state, .. } = event {
                told.insert(*prefix, state.clone());
            }
        }
        told
    }
}

pub fn via(prefix: &str, hops: &[(&str, u32)]) -> Route {
    let hops = hops.iter().map(|(gateway, index)| NextHop::gateway(ip(gateway), *index)).collect();
    Route::unicast(network(prefix), hops)
}

/// Runs a scenario under every failure.
pub fn under_every_failure(scenario: impl Fn(&mut World)) {
    for (name, failures) in failures() {
        for objects in [true, false] {
            println!("when {name}, nexthop objects: {objects}");
            scenario(&mut World::new(&failures, objects));
        }
    }
}
