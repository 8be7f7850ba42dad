//! How many connections the port carries, by what their peers have proved, in all and per address.
//!
//! Strangers and proxies never share a budget: a pod that opens connections without end keeps neither other pods from
//! their configuration nor new ones from their certificates. Called by [`super`]; it knows no socket.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In its handshake.
    Handshake,
    /// Without a client certificate: it can do nothing but ask for one.
    Stranger,
    /// With a client certificate of the mesh.
    Member,
}

/// Stages.
const STAGES: usize = 3;

impl Stage {
    /// Most connections at once, in all and from one address.
    fn most(self) -> (usize, usize) {
        match self {
            // Each takes 10 s at most.
            Self::Handshake => (1_024, 64),
            Self::Stranger => (1_024, 32),
            // One per proxy, and a second while a proxy connects anew.
            Self::Member => (12_000, 64),
        }
    }
}

/// What is left. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Budget(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: [usize; STAGES],
    by_address: HashMap<IpAddr, [usize; STAGES]>,
}

/// A connection's place in the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    budget: Budget,
    address: IpAddr,
    stage: Stage,
}

impl Budget {
    /// A place for a connection from `address`; none where there is none left.
    pub(super) fn take(&self, address: IpAddr, stage: Stage) -> Option<Place> {
        let address = address.to_canonical();
        let (most, most_of_address) = stage.most();
        let mut taken = self.0.lock();
        let of_address = taken.by_address.get(&address).map_or(0, |stages| stages[stage as usize]);
        if taken.all[stage as usize] >= most || of_address >= most_of_address {
            return None;
        }
        taken.all[stage as usize] += 1;
        taken.by_address.entry(address).or_default()[stage as usize] += 1;
        drop(taken);
        Some(Place { budget: self.clone(), address, stage })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.budget.0.lock();
        taken.all[self.stage as usize] -= 1;
        if let Some(stages) = taken.by_address.get_mut(&self.address) {
            stages[self.stage as usize] -= 1;
            if *stages == [0; STAGES] {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_an_address_nor_the_strangers_together_can_take_what_belongs_to_others() {
        let budget = Budget::default();
        let address = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        let mut places = Vec::new();
        let (most, of_one) = Stage::Stranger.most();
        for _ in 0..of_one {
            places.push(budget.take(address(0), Stage::Stranger).unwrap());
        }
        assert!(budget.take(address(0), Stage::Stranger).is_none(), "its own share is used up");
        let mapped = "::ffff:0.0.0.0".parse().unwrap();
        assert!(budget.take(mapped, Stage::Stranger).is_none(), "the same address");
        places.extend((of_one..most).map(|number| budget.take(address(number), Stage::Stranger).unwrap()));
        assert!(budget.take(address(most), Stage::Stranger).is_none(), "all shares are used up");
        assert!(budget.take(address(0), Stage::Handshake).is_some());
        assert!(budget.take(address(0), Stage::Member).is_some());
        drop(places);
        assert!(budget.take(address(0), Stage::Stranger).is_some());
        assert!(budget.0.lock().by_address.is_empty());
    }
}
