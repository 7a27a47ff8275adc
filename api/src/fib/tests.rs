//! The feed's codec: what goes in comes out, and nothing that comes in can hurt.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn subnet() -> impl Strategy<Value = IpNetwork> {
    (address(), any::<u8>()).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 33 } else { 129 };
        IpNetwork::new(address, length % most).unwrap()
    })
}

fn prefix() -> impl Strategy<Value = IpNetwork> {
    subnet().prop_map(|subnet| IpNetwork::new(subnet.network(), subnet.prefix()).unwrap())
}

fn next_hop() -> impl Strategy<Value = NextHop> {
    (address(), any::<u32>()).prop_map(|(address, scope)| NextHop { address, scope })
}

fn tunnel() -> impl Strategy<Value = TunnelEndpoint> {
    let kind = prop_oneof![Just(TunnelType::Any), Just(TunnelType::Vxlan), Just(TunnelType::Ipip)];
    let vni = proptest::option::of(0..=MAX_VNI);
    (kind, address(), vni, any::<Option<[u8; 6]>>()).prop_map(|(kind, address, vni, mac)| TunnelEndpoint {
        kind,
        address,
        vni,
        mac,
    })
}

fn member() -> impl Strategy<Value = GroupMember> {
    (next_hop(), 1..=u8::MAX, proptest::option::of(tunnel()))
        .prop_map(|(next_hop, weight, tunnel)| GroupMember { next_hop, weight, tunnel })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (any::<u16>(), any::<bool>()).prop_map(|(version, restarted)| Command::Hello { version, restarted }),
        Just(Command::SnapshotBegin),
        next_hop().prop_map(|next_hop| Command::NextHopRegister { next_hop }),
        next_hop().prop_map(|next_hop| Command::NextHopUnregister { next_hop }),
        (any::<u32>(), vec(member(), 1..=MAX_GROUP), vec(member(), 0..=MAX_GROUP))
            .prop_map(|(id, members, backups)| Command::Group { id, members, backups }),
        any::<u32>().prop_map(|id| Command::GroupDelete { id }),
        (prefix(), any::<u32>(), any::<u64>()).prop_map(|(prefix, group, generation)| Command::Route {
            prefix,
            group,
            generation
        }),
        (prefix(), any::<u64>()).prop_map(|(prefix, generation)| Command::Withdraw { prefix, generation }),
        prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)]
            .prop_map(|family| Command::EndOfSnapshot { family }),
    ]
}

fn next_hop_state() -> impl Strategy<Value = NextHopState> {
    prop_oneof![
        Just(NextHopState::Unreachable),
        ("[a-z0-9]{1,15}", any::<u32>())
            .prop_map(|(device, ifindex)| NextHopState::Connected { device, ifindex }),
        (address(), "[a-z0-9]{1,15}", any::<u32>(), any::<u32>()).prop_map(
            |(gateway, device, ifindex, metric)| {
                NextHopState::Gateway { gateway, device, ifindex, metric }
            }
        ),
    ]
}

fn route_state() -> impl Strategy<Value = RouteState> {
    let via = prop_oneof![
        Just(Via::Direct),
        Just(Via::Ipip),
        Just(Via::Vxlan),
        Just(Via::Recursive),
        Just(Via::Local)
    ];
    prop_oneof![
        via.prop_map(|via| RouteState::Installed { via }),
        ".{0,40}".prop_map(|reason| RouteState::Pending { reason }),
        ".{0,40}".prop_map(|reason| RouteState::Failed { reason }),
        Just(RouteState::Removed),
    ]
}

fn link() -> impl Strategy<Value = Link> {
    (".{0,15}", any::<u32>(), vec(subnet(), 0..=MAX_SUBNETS)).prop_map(|(device, ifindex, subnets)| Link {
        device,
        ifindex,
        subnets,
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<u16>(), any::<bool>(), any::<bool>())
            .prop_map(|(version, ipv4_kept, ipv6_kept)| Event::Hello { version, ipv4_kept, ipv6_kept }),
        (next_hop(), next_hop_state()).prop_map(|(next_hop, state)| Event::NextHopState { next_hop, state }),
        link().prop_map(Event::LinkDown),
        link().prop_map(Event::LinkUp),
        (prefix(), any::<u64>(), route_state()).prop_map(|(prefix, generation, state)| Event::Status {
            prefix,
            generation,
            state
        }),
        ".{0,40}".prop_map(|reason| Event::Goodbye { reason }),
    ]
}

/// Feeds `bytes` in pieces of `step` and returns what came out.
fn pump<M: Message>(bytes: &[u8], step: usize) -> Result<Vec<M>, DecodeError> {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for piece in bytes.chunks(step) {
        decoder.extend(piece);
        while let Some(message) = decoder.poll()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

fn encoded<M: Message>(messages: &[M]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let start = bytes.len();
        message.encode(&mut bytes);
        assert!(bytes.len() - start - 4 <= MAX_FRAME, "a frame above the limit");
    }
    bytes
}

proptest! {
    #[test]
    fn commands_survive_the_wire_however_it_is_cut(messages in vec(command(), 0..6), step in 1usize..64) {
        prop_assert_eq!(pump::<Command>(&encoded(&messages), step), Ok(messages));
    }

    #[test]
    fn events_survive_the_wire_however_it_is_cut(messages in vec(event(), 0..6), step in 1usize..64) {
        prop_assert_eq!(pump::<Event>(&encoded(&messages), step), Ok(messages));
    }

    #[test]
    fn noise_is_an_error_or_a_message_never_a_panic(body in vec(any::<u8>(), 0..200)) {
        // What decodes must be the encoding of what it decoded to: there is one way to say a thing.
        for kind in [None, Some(GROUP_KIND), Some(STATUS_KIND), Some(LINK_KIND)] {
            let mut body = body.clone();
            if let (Some(kind), Some(first)) = (kind, body.first_mut()) {
                *first = kind;
            }
            if let Ok(command) = Command::decode(&body) {
                prop_assert_eq!(&encoded(&[command])[4..], &body[..]);
            }
            if let Ok(event) = Event::decode(&body) {
                prop_assert_eq!(&encoded(&[event])[4..], &body[..]);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_an_error_or_another_message(
        command in command(), event in event(), at in any::<prop::sample::Index>(), to in any::<u8>()
    ) {
        let mut bytes = encoded(&[command]);
        let at_command = at.index(bytes.len());
        bytes[at_command] = to;
        for message in pump::<Command>(&bytes, 4096).unwrap_or_default() {
            encoded(&[message]);
        }
        let mut bytes = encoded(&[event]);
        let at_event = at.index(bytes.len());
        bytes[at_event] = to;
        for message in pump::<Event>(&bytes, 4096).unwrap_or_default() {
            encoded(&[message]);
        }
    }

    #[test]
    fn a_body_cut_short_is_an_error(command in command(), event in event(), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&[command]);
        let body = &bytes[4..];
        prop_assert!(Command::decode(&body[..at.index(body.len())]).is_err());
        let bytes = encoded(&[event]);
        let body = &bytes[4..];
        prop_assert!(Event::decode(&body[..at.index(body.len())]).is_err());
    }
}

const GROUP_KIND: u8 = 5;
const STATUS_KIND: u8 = 69;
const LINK_KIND: u8 = 67;

#[test]
fn errors_name_the_message_and_the_field() {
    let text = |body: &[u8]| Command::decode(body).unwrap_err().to_string();
    assert_eq!(text(&[200]), "unknown message type 200");
    assert_eq!(text(&[1, 0]), "message type 1 ends inside its field version");
    assert_eq!(text(&[1, 0, 1, 7]), "message type 1: bad value 7 in field restarted");
    assert_eq!(text(&[2, 0]), "message type 2 has 1 bytes too many");
    assert_eq!(text(&[5, 0, 0, 0, 1, 0, 0]), "message type 5: bad value 0 in field members");
    let host_bits = [8, 4, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(text(&host_bits), "message type 8: prefix 10.0.0.1/8 has host bits set");
    let too_long = [8, 4, 33, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(text(&too_long), "message type 8: bad value 33 in field prefix");
    let vni =
        [5, 0, 0, 0, 1, 0, 1, 4, 192, 0, 2, 1, 0, 0, 0, 0, 1, 2, 4, 192, 0, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0];
    assert_eq!(text(&vni), "message type 5: bad value 16777216 in field vni");
    assert_eq!(
        Event::decode(&[70, 0, 1, 0xff]).unwrap_err().to_string(),
        "message type 70: field reason is not UTF-8"
    );
}

#[test]
fn the_largest_group_fits_a_frame() {
    let address = IpAddr::from([0xff; 16]);
    let tunnel =
        TunnelEndpoint { kind: TunnelType::Vxlan, address, vni: Some(MAX_VNI), mac: Some([0xff; 6]) };
    let member =
        GroupMember { next_hop: NextHop { address, scope: u32::MAX }, weight: 255, tunnel: Some(tunnel) };
    let members = vec![member; MAX_GROUP];
    let group = Command::Group { id: u32::MAX, backups: members.clone(), members };
    let bytes = encoded(std::slice::from_ref(&group));
    assert_eq!(pump::<Command>(&bytes, 4096), Ok(vec![group]));
}

#[test]
fn a_frame_above_the_limit_is_refused_before_it_is_collected() {
    let mut decoder = Decoder::new();
    decoder.extend(&(MAX_FRAME as u32 + 1).to_be_bytes());
    assert_eq!(decoder.poll::<Command>(), Err(DecodeError::FrameLength(MAX_FRAME + 1)));
    let mut decoder = Decoder::new();
    decoder.extend(&[0; 4]);
    assert_eq!(decoder.poll::<Command>(), Err(DecodeError::FrameLength(0)));
}

#[test]
fn long_text_is_cut_at_a_character() {
    let long = Event::Goodbye { reason: "ü".repeat(MAX_TEXT) + "x" };
    let Ok(events) = pump::<Event>(&encoded(&[long]), 4096) else { panic!("does not decode") };
    assert_eq!(events, [Event::Goodbye { reason: "ü".repeat(MAX_TEXT / 2) }]);
}
