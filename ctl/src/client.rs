//! A small HTTP client for the daemons' unix sockets: one request a connection, answers read whole.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_api::control::Refusal;
use serde::de::DeserializeOwned;

use crate::Error;

/// A daemon that does not answer for this long counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest head of an answer.
const HEAD_LIMIT: u64 = 64 << 10;

/// Asks the daemons of one run folder.
pub struct Client {
    run_dir: PathBuf,
}

impl Client {
    /// A client for the sockets in `run_dir`.
    pub fn new(run_dir: &Path) -> Client {
        Client { run_dir: run_dir.to_owned() }
    }

    /// `GET target` on `socket` (a file name of the run folder).
    ///
    /// # Errors
    /// The daemon cannot be reached, answers no, or answers something else than a `T`.
    pub fn get<T: DeserializeOwned>(&self, socket: &str, target: &str) -> Result<T, Error> {
        self.request(socket, "GET", target, "")
    }

    /// `POST target` with a JSON body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(&self, socket: &str, target: &str, body: &str) -> Result<T, Error> {
        self.request(socket, "POST", target, body)
    }

    fn request<T: DeserializeOwned>(
        &self,
        socket: &str,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<T, Error> {
        let path = self.run_dir.join(socket);
        let unreachable = |error: std::io::Error| {
            Error::Unreachable(format!("{}: {error} (is {} running?)", path.display(), daemon_of(socket)))
        };
        let mut stream = UnixStream::connect(&path).map_err(unreachable)?;
        let exchange = |stream: &mut UnixStream| -> std::io::Result<(u16, Vec<u8>)> {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            write!(
                stream,
                "{method} {target} HTTP/1.1\r\nHost: causeway\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            read_answer(BufReader::new(stream))
        };
        let (status, body) = exchange(&mut stream).map_err(unreachable)?;
        if !(200..300).contains(&status) {
            let why = match serde_json::from_slice::<Refusal>(&body) {
                Ok(refusal) => refusal.error,
                Err(_) => format!("status {status}: {}", String::from_utf8_lossy(&body).trim()),
            };
            return Err(Error::Refused(why));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Error::Unreachable(format!(
                "{}: {target}: the answer is not understood: {error} (another version of {}?)",
                path.display(),
                daemon_of(socket)
            ))
        })
    }
}

/// Name of the daemon behind a socket.
pub fn daemon_of(socket: &str) -> String {
    format!("causeway-{}", socket.trim_end_matches(".sock"))
}

/// Percent-encodes what may not stand in a query value as it is.
pub fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b':' | b'-' | b'_' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Reads status and body of an HTTP/1.1 answer: by length, chunked, or to the end of the stream.
fn read_answer(mut from: impl BufRead) -> std::io::Result<(u16, Vec<u8>)> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut head = from.by_ref().take(HEAD_LIMIT);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.trim().parse().ok())
        .ok_or_else(|| bad("the answer is not HTTP"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("the answer ends within its head"));
        }
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<u64>().map_err(|_| bad("a bad content-length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.trim().eq_ignore_ascii_case("chunked");
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            line.clear();
            from.read_line(&mut line)?;
            let digits = line.trim_end().split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(|_| bad("a bad chunk size"))?;
            if size == 0 {
                break;
            }
            if from.by_ref().take(size).read_to_end(&mut body)? as u64 != size {
                return Err(bad("the answer ends within a chunk"));
            }
            line.clear();
            from.read_line(&mut line)?;
        }
    } else if let Some(length) = length {
        if from.take(length).read_to_end(&mut body)? as u64 != length {
            return Err(bad("the answer is shorter than it says"));
        }
    } else {
        from.read_to_end(&mut body)?;
    }
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_by_length_chunked_and_to_the_end() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1,2]rest",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n[1,2]",
        ] {
            assert_eq!(read_answer(text.as_bytes()).unwrap(), (200, b"[1,2]".to_vec()), "{text}");
        }
    }

    #[test]
    fn answers_cut_short_are_errors() {
        for text in [
            "",
            "SSH-2.0\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[1,2]",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n[1",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(read_answer(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn query_values_are_encoded() {
        assert_eq!(encode("fd00::/64"), "fd00::%2F64");
        assert_eq!(encode("a&b c"), "a%26b%20c");
    }
}
