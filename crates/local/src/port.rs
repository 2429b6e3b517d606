//! Port reservation for servers in other processes. Such a server opens its port itself, some time after it was started
//! with the number, and again when it is restarted; until then no other program may use the port.
//!
//! Therefore a port is outside of the ranges that operating systems assign automatically (Linux from 32,768 on, macOS
//! from 49,152 on) and is reserved: a UDP socket is bound to the same number, which no other caller of this module, in
//! this or another process, can bind at the same time. UDP sockets do not affect TCP.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

const FIRST: u16 = 20_000;
/// The number of ports to choose from. The servers of a cluster also listen on a second port, 10,000 higher.
const COUNT: u16 = 10_000;

/// A port of the loopback interface that is reserved until this is dropped.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _claim: UdpSocket,
}

impl ReservedPort {
    /// Reserves a port on which no program listens.
    ///
    /// # Errors
    /// Fails if all ports are in use, or if the machine has no loopback interface.
    pub fn claim() -> io::Result<Self> {
        // A random start: concurrent callers start at different ports.
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

    /// Returns the number of the port.
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
