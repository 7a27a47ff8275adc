//! A small HTTP client for the daemons' unix sockets: one request a connection. Answers are read whole, but for long
//! lists, of which each row is passed on as it comes.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_api::control::Refusal;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};

use crate::Error;

/// A daemon that does not answer for this long counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest head of an answer.
const HEAD_LIMIT: u64 = 64 << 10;
/// How much of a long list is read at a time.
const READ_AHEAD: usize = 64 << 10;

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

    /// `GET target`, an array of which every element goes to `row` as it comes: none is kept.
    ///
    /// # Errors
    /// As [`Client::get`], and what `row` says, which ends it. Rows may have come before.
    pub fn each<T: DeserializeOwned>(
        &self,
        socket: &str,
        target: &str,
        mut row: impl FnMut(T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let body = self.exchange(socket, "GET", target, "")?;
        let mut stopped = None;
        let mut array = serde_json::Deserializer::from_reader(BufReader::with_capacity(READ_AHEAD, body));
        let rows = Rows { row: &mut row, stopped: &mut stopped, of: PhantomData };
        let read = array.deserialize_seq(rows).and_then(|()| array.end());
        match stopped {
            Some(error) => Err(error),
            None => read.map_err(|error| self.not_understood(socket, target, &error)),
        }
    }

    fn request<T: DeserializeOwned>(
        &self,
        socket: &str,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<T, Error> {
        let mut answer = Vec::new();
        let mut from = self.exchange(socket, method, target, body)?;
        from.read_to_end(&mut answer).map_err(|error| self.unreachable(socket, &error))?;
        serde_json::from_slice(&answer).map_err(|error| self.not_understood(socket, target, &error))
    }

    /// Asks, and returns the body of an answer that is no refusal.
    fn exchange(
        &self,
        socket: &str,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<Answer<BufReader<UnixStream>>, Error> {
        let unreachable = |error: std::io::Error| self.unreachable(socket, &error);
        let mut stream = UnixStream::connect(self.run_dir.join(socket)).map_err(unreachable)?;
        let ask = |stream: &mut UnixStream| -> std::io::Result<()> {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            write!(
                stream,
                "{method} {target} HTTP/1.1\r\nHost: causeway\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        ask(&mut stream).map_err(unreachable)?;
        let (status, mut answer) = read_head(BufReader::new(stream)).map_err(unreachable)?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let mut body = Vec::new();
        answer.read_to_end(&mut body).map_err(unreachable)?;
        Err(Error::Refused(match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => refusal.error,
            Err(_) => format!("status {status}: {}", String::from_utf8_lossy(&body).trim()),
        }))
    }

    fn unreachable(&self, socket: &str, error: &std::io::Error) -> Error {
        let path = self.run_dir.join(socket);
        Error::Unreachable(format!("{}: {error} (is {} running?)", path.display(), daemon_of(socket)))
    }

    fn not_understood(&self, socket: &str, target: &str, error: &serde_json::Error) -> Error {
        Error::Unreachable(format!(
            "{}: {target}: the answer is not understood: {error} (another version of {}?)",
            self.run_dir.join(socket).display(),
            daemon_of(socket)
        ))
    }
}

/// Passes the elements of an array on.
struct Rows<'a, T, F> {
    row: &'a mut F,
    /// Why `row` wants no more.
    stopped: &'a mut Option<Error>,
    of: PhantomData<T>,
}

impl<'de, T: DeserializeOwned, F: FnMut(T) -> Result<(), Error>> Visitor<'de> for Rows<'_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element::<T>()? {
            if let Err(error) = (self.row)(element) {
                *self.stopped = Some(error);
                return Err(serde::de::Error::custom("nobody wants the rest"));
            }
        }
        Ok(())
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

fn bad(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

/// The body of an HTTP/1.1 answer.
struct Answer<R> {
    from: R,
    framing: Framing,
}

/// Where a body ends.
enum Framing {
    /// After so many octets.
    Length(u64),
    /// After the chunk that is empty; so many octets are left of this one, `None` before the first.
    Chunks(Option<u64>),
    /// After the last of them.
    Over,
    /// Where the stream ends.
    Rest,
}

impl<R: BufRead> Read for Answer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Framing::Chunks(None | Some(0)) = self.framing {
            self.next_chunk()?;
        }
        let left = match &mut self.framing {
            Framing::Length(left) | Framing::Chunks(Some(left)) => left,
            Framing::Over | Framing::Chunks(None) => return Ok(0),
            Framing::Rest => return self.from.read(buffer),
        };
        let room = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let count = self.from.read(&mut buffer[..room])?;
        *left -= count as u64;
        if count == 0 { Err(bad("the answer ends too early")) } else { Ok(count) }
    }
}

impl<R: BufRead> Answer<R> {
    /// Reads the head of a chunk, and the end of line of the one before.
    fn next_chunk(&mut self) -> std::io::Result<()> {
        let mut line = String::new();
        if matches!(self.framing, Framing::Chunks(Some(_))) {
            self.from.by_ref().take(2).read_line(&mut line)?;
            line.clear();
        }
        self.from.by_ref().take(HEAD_LIMIT).read_line(&mut line)?;
        let digits = line.trim_end().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(digits, 16).map_err(|_| bad("a bad chunk size"))?;
        self.framing = if size == 0 { Framing::Over } else { Framing::Chunks(Some(size)) };
        Ok(())
    }
}

/// Reads the status and the head of an HTTP/1.1 answer.
fn read_head<R: BufRead>(mut from: R) -> std::io::Result<(u16, Answer<R>)> {
    let mut head = from.by_ref().take(HEAD_LIMIT);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.trim().parse().ok())
        .ok_or_else(|| bad("the answer is not HTTP"))?;
    let mut framing = Framing::Rest;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("the answer ends within its head"));
        }
        let header = line.trim_end();
        if header.is_empty() {
            return Ok((status, Answer { from, framing }));
        }
        let (name, value) = header.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
        let value = value.trim();
        let chunked = matches!(framing, Framing::Chunks(_));
        if name.eq_ignore_ascii_case("content-length") && !chunked {
            framing = Framing::Length(value.parse().map_err(|_| bad("a bad content-length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            framing = Framing::Chunks(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_answer(text: &str) -> std::io::Result<(u16, Vec<u8>)> {
        let (status, mut answer) = read_head(text.as_bytes())?;
        let mut body = Vec::new();
        answer.read_to_end(&mut body)?;
        Ok((status, body))
    }

    #[test]
    fn answers_by_length_chunked_and_to_the_end() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1,2]rest",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n[1,2]",
        ] {
            assert_eq!(read_answer(text).unwrap(), (200, b"[1,2]".to_vec()), "{text}");
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
            assert!(read_answer(text).is_err(), "{text}");
        }
    }

    /// A daemon that gives this answer to whoever asks first.
    fn answering(text: &'static str) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("bgpd.sock")).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
            request.by_ref().map(Result::unwrap).find(String::is_empty).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        });
        (dir, daemon)
    }

    #[test]
    fn rows_of_a_list_come_one_by_one() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let cases = [
            ("3\r\n[1,\r\n3\r\n2,3\r\n1\r\n]\r\n0\r\n\r\n", vec![1, 2, 3], None),
            ("4\r\n[1,2\r\n", vec![1], Some("is not understood")),
            ("4\r\n[1,2\r\n0\r\n\r\n", vec![1, 2], Some("is not understood")),
            ("6\r\n[1,99,\r\n", vec![1, 99], Some("enough")),
        ];
        for (body, wanted, error) in cases {
            let (dir, daemon) = answering(format!("{head}{body}").leak());
            let mut rows = Vec::new();
            let done = Client::new(dir.path()).each("bgpd.sock", "/v1/routes", |row: u8| {
                rows.push(row);
                if row == 99 { Err(Error::Usage("enough".to_owned())) } else { Ok(()) }
            });
            daemon.join().unwrap();
            assert_eq!(rows, wanted, "{body}");
            match error {
                None => done.unwrap(),
                Some(text) => assert!(done.unwrap_err().to_string().contains(text), "{body}"),
            }
        }
    }

    #[test]
    fn query_values_are_encoded() {
        assert_eq!(encode("fd00::/64"), "fd00::%2F64");
        assert_eq!(encode("a&b c"), "a%26b%20c");
    }
}
