//! Ports for servers that are other processes. Such a server opens its port itself, a moment after it was told which one,
//! and again when it is started anew; until then nobody else may have it.
//!
//! So a port is one that no system gives away by itself (Linux does from 32,768 on, macOS from 49,152), and is claimed: a
//! UDP socket holds its number, which whoever claims one here, in this process or another, cannot have at the same time. TCP
//! takes no notice of that.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

const FIRST: u16 = 20_000;
/// A cluster's servers listen on a second port as well, 10,000 higher.
const COUNT: u16 = 10_000;

/// A port of the loopback that is kept for whoever holds this.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _claim: UdpSocket,
}

impl ReservedPort {
    /// Claims a port that nobody listens on.
    ///
    /// # Errors
    /// All of them are taken, or there is no loopback.
    pub fn claim() -> io::Result<Self> {
        // Anywhere: who looks at the same moment looks elsewhere.
        let start = u16::try_from(RandomState::new().hash_one(()) % u64::from(COUNT)).unwrap_or(0);
        let mut refused = None;
        for step in 0..COUNT {
            match Self::take(FIRST + (start + step) % COUNT) {
                Ok(port) => return Ok(port),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    fn take(number: u16) -> io::Result<Self> {
        let claim = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number))?;
        Ok(Self { number, _claim: claim })
    }

    /// Which one it is.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_port_is_one_holder_s_and_open_to_its_server() {
        let ports: Vec<ReservedPort> = (0..50).map(|_| ReservedPort::claim().unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(ReservedPort::number).collect();
        assert_eq!(numbers.len(), ports.len());
        let number = ports[0].number();
        assert!(ReservedPort::take(number).is_err(), "it is claimed");
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        drop(ports);
        assert!(ReservedPort::take(number).is_err(), "somebody listens there");
        drop(server);
        assert_eq!(ReservedPort::take(number).unwrap().number(), number);
    }
}
