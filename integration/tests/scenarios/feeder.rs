//! A BGP speaker in a test's hand: it sends exactly the octets it is told to. Its encoder is its own, so that it checks ours.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use causeway_integration::lab::Lab;
use causeway_integration::until::until;

/// Message types of RFC 4271 4.1 and RFC 2918.
pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;

/// The feeder's AS where it is no part of the node's.
const EXTERNAL_AS: u16 = 65004;

/// How the node ended a session.
#[derive(Clone, Copy)]
enum Ending {
    /// By NOTIFICATION: code and subcode.
    Notification(u8, u8),
    /// By closing the connection.
    Closed,
}

/// An established session with a node.
pub struct Feeder {
    stream: TcpStream,
    ended: Arc<Mutex<Option<Ending>>>,
    quiet: Arc<AtomicBool>,
}

impl Feeder {
    /// Connects from the lab's `feeder` and brings the session up; keepalives go out each second by themselves.
    pub fn connect(lab: &Lab) -> Result<Self> {
        Self::connect_as(lab, EXTERNAL_AS)
    }

    /// As [`Feeder::connect`] with another AS number.
    pub fn connect_as(lab: &Lab, asn: u16) -> Result<Self> {
        let node: SocketAddr = "192.0.2.7:179".parse()?;
        let bound = Duration::from_secs(20);
        let stream = until(bound, || {
            let place = lab.namespaces("feeder")?;
            let mut stream =
                place.in_network(|| TcpStream::connect_timeout(&node, Duration::from_secs(2)))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(&message(OPEN, &open(asn)))?;
            let (kind, body) = read_message(&mut stream)?;
            ensure!(kind == OPEN, "the node answered OPEN with type {kind}: {body:?}");
            stream.write_all(&message(KEEPALIVE, &[]))?;
            let (kind, body) = read_message(&mut stream)?;
            ensure!(kind == KEEPALIVE, "the node answered KEEPALIVE with type {kind}: {body:?}");
            Ok(stream)
        })?;
        let ended = Arc::new(Mutex::new(None));
        let quiet = Arc::new(AtomicBool::new(false));
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let (mut reader, end, hush) = (stream.try_clone()?, Arc::clone(&ended), Arc::clone(&quiet));
        std::thread::spawn(move || {
            let result = read_on(&mut reader, &hush);
            *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        Ok(Self { stream, ended, quiet })
    }

    /// Sends octets as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the node does not take what the feeder sends")
    }

    /// Sends an UPDATE that announces prefixes with the feeder as next hop.
    pub fn announce(&mut self, prefixes: &[(Ipv4Addr, u8)]) -> Result<()> {
        // 4,096 octets a message: 4 an announced /17 to /24.
        for chunk in prefixes.chunks(800) {
            self.send(&message(UPDATE, &update(&attributes(&[65004]), chunk)))?;
        }
        Ok(())
    }

    /// Sends no more keepalives; the connection stays open.
    pub fn fall_silent(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// Waits for the node's NOTIFICATION: code and subcode.
    pub fn notification(&self, bound: Duration) -> Result<(u8, u8)> {
        until(bound, || match *self.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Ending::Notification(code, subcode)) => Ok((code, subcode)),
            Some(Ending::Closed) => bail!("the connection ended without NOTIFICATION"),
            None => bail!("the session goes on"),
        })
    }

    /// True while the node has not ended the session.
    pub fn is_up(&self) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        // The reader thread ends with the connection.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Reads until the connection ends, and sends a keepalive a second.
fn read_on(stream: &mut TcpStream, quiet: &AtomicBool) -> Ending {
    let mut last = Instant::now();
    loop {
        match read_message(stream) {
            Ok((NOTIFICATION, body)) => {
                let codes = (body.first().copied(), body.get(1).copied());
                return match codes {
                    (Some(code), Some(subcode)) => Ending::Notification(code, subcode),
                    _ => Ending::Closed,
                };
            }
            Ok(_) => {}
            Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                _ => return Ending::Closed,
            },
        }
        if last.elapsed() >= Duration::from_secs(1) && !quiet.load(Ordering::Relaxed) {
            last = Instant::now();
            if stream.write_all(&message(KEEPALIVE, &[])).is_err() {
                return Ending::Closed;
            }
        }
    }
}

fn read_message(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let mut header = [0u8; 19];
    stream.read_exact(&mut header[..1])?;
    stream.read_exact(&mut header[1..])?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; length.saturating_sub(19)];
    stream.read_exact(&mut body)?;
    Ok((header[18], body))
}

/// A message with its header.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend((body.len() as u16 + 19).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// OPEN with hold time 9 s, IPv4 unicast and 4-octet AS numbers.
fn open(asn: u16) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    let capabilities = [1, 4, 0, 1, 0, 1, 65, 4, 0, 0, high, low];
    let mut body = vec![4, high, low, 0, 9, 192, 0, 2, 6];
    body.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend(capabilities);
    body
}

/// ORIGIN, AS_PATH and NEXT_HOP of the feeder.
pub fn attributes(path: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0x40, 1, 1, 0];
    bytes.extend([0x40, 2, 2 + 4 * path.len() as u8, 2, path.len() as u8]);
    bytes.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
    bytes.extend([0x40, 3, 4, 192, 0, 2, 6]);
    bytes
}

/// The attributes of a path inside the AS: ORIGIN, an empty AS_PATH, NEXT_HOP, LOCAL_PREF.
pub fn internal_attributes(next_hop: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4];
    bytes.extend(next_hop.octets());
    bytes.extend([0x40, 5, 4, 0, 0, 0, 100]);
    bytes
}

/// Body of an UPDATE that withdraws.
pub fn withdrawal(prefixes: &[(Ipv4Addr, u8)]) -> Vec<u8> {
    let octets = nlri(prefixes);
    let mut body = (octets.len() as u16).to_be_bytes().to_vec();
    body.extend(octets);
    body.extend([0, 0]);
    body
}

/// Body of an UPDATE.
pub fn update(attributes: &[u8], prefixes: &[(Ipv4Addr, u8)]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend(nlri(prefixes));
    body
}

fn nlri(prefixes: &[(Ipv4Addr, u8)]) -> Vec<u8> {
    let mut octets = Vec::new();
    for (address, length) in prefixes {
        octets.push(*length);
        octets.extend(&address.octets()[..usize::from(length.div_ceil(8))]);
    }
    octets
}
