//! A drain of a stream's pod: when to look who still sends to it, and what of that is news.
//!
//! [`super::stream`] looks and says it; who that is, [`Proxies`](crate::grpc::proxies::Proxies) know.

use std::{future::pending, time::Duration};

use mesh_proto::config::Holding;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::{compile::Offers, metrics::Metrics};

/// Between two looks. Acknowledgements come one by one from every client, so they are collected and not followed.
const LOOK: Duration = Duration::from_millis(100);

/// A drain that has begun.
pub(super) struct Drain {
    begun: Instant,
    look: Interval,
    told: Option<Holding>,
}

impl Drain {
    /// The first look is due at once.
    pub(super) fn begin(metrics: &Metrics) -> Self {
        metrics.drains();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { begun: Instant::now(), look, told: None }
    }

    /// Whether its proxy has not been told this.
    pub(super) fn is_news(&self, holding: Holding) -> bool {
        self.told != Some(holding)
    }

    /// Its proxy was told.
    pub(super) fn told(&mut self, holding: Holding, metrics: &Metrics) {
        self.told = Some(holding);
        if holding == Holding::NOBODY {
            metrics.let_go(self.begun.elapsed());
        }
    }
}

/// When the next look is due. Once nobody sends to a pod any more nobody begins to again: what is compiled no longer has it.
pub(super) async fn due(drain: Option<&mut Drain>) {
    match drain {
        Some(drain) if drain.told != Some(Holding::NOBODY) => {
            drain.look.tick().await;
        }
        _ => pending().await,
    }
}

/// Who sends to a pod. While it is offered there are always new ones, so they are not counted.
pub(super) fn holding(offers: &Offers, count: impl FnOnce() -> usize) -> Holding {
    if offers.offered {
        return Holding { offered: true, clients: 0 };
    }
    Holding { offered: false, clients: u32::try_from(count()).unwrap_or(u32::MAX) }
}
