//! One look for all who ask at the same time, and never one that began before they asked.
//!
//! Pods are created in bursts, and the reviews of a burst ask the same question. `namespaces` asks the API server through this:
//! as many as came while a look was under way share the next one. Knows nothing of what is looked at.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// Looks by name. Holds a name only while somebody asks for it.
pub(super) struct Together<T>(Mutex<HashMap<String, Arc<Looks<T>>>>);

/// The looks for one name.
struct Looks<T> {
    /// How many have begun.
    begun: AtomicU64,
    /// The number of the last that ended, and what it found. Whoever holds this looks.
    last: tokio::sync::Mutex<(u64, Option<T>)>,
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Together<T> {
    /// What `look` finds, or what that of another found which began after this call.
    pub(super) async fn ask<F: Future<Output = T>>(&self, name: &str, look: impl FnOnce() -> F) -> T {
        let asking = Asking::begin(self, name);
        let before = asking.looks.begun.load(Ordering::SeqCst);
        let mut last = asking.looks.last.lock().await;
        if let (number, Some(found)) = &*last
            && *number > before
        {
            return found.clone();
        }
        let number = asking.looks.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let found = look().await;
        *last = (number, Some(found.clone()));
        found
    }
}

/// One who asks. The last one to leave takes the name out.
struct Asking<'a, T> {
    all: &'a Together<T>,
    name: &'a str,
    looks: Arc<Looks<T>>,
}

impl<'a, T> Asking<'a, T> {
    fn begin(all: &'a Together<T>, name: &'a str) -> Self {
        let new = || Arc::new(Looks { begun: AtomicU64::new(0), last: tokio::sync::Mutex::new((0, None)) });
        let looks = Arc::clone(all.0.lock().entry(name.to_owned()).or_insert_with(new));
        Self { all, name, looks }
    }
}

impl<T> Drop for Asking<'_, T> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        // The map's and this one.
        if Arc::strong_count(&self.looks) == 2 {
            all.remove(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, pin::pin};

    use futures_util::{future::join_all, poll};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn those_who_come_during_a_look_share_the_next_one_and_never_that_one() {
        let together = Together::default();
        let (begun, may_end) = (Cell::new(0), Semaphore::new(0));
        let ask = |name| {
            together.ask(name, || async {
                begun.set(begun.get() + 1);
                let number = begun.get();
                may_end.acquire().await.unwrap().forget();
                number
            })
        };
        let mut first = pin!(ask("shop"));
        assert!(poll!(&mut first).is_pending());
        let mut others = pin!(join_all((0..20).map(|_| ask("shop"))));
        assert!(poll!(&mut others).is_pending());
        assert_eq!(begun.get(), 1);
        may_end.add_permits(1);
        assert_eq!(first.await, 1);
        may_end.add_permits(1);
        assert_eq!(others.await, [2; 20]);
        assert!(together.0.lock().is_empty());
    }

    #[tokio::test]
    async fn one_who_leaves_in_the_midst_of_a_look_leaves_it_to_the_next() {
        let together = Together::default();
        {
            let mut gone = pin!(together.ask("shop", std::future::pending::<u8>));
            assert!(poll!(&mut gone).is_pending());
            let mut next = pin!(together.ask("shop", || async { 2 }));
            assert!(poll!(&mut next).is_pending());
            let mut other = pin!(together.ask("web", || async { 3 }));
            assert_eq!(poll!(&mut other), std::task::Poll::Ready(3), "another name does not wait");
            gone.set(together.ask("shop", std::future::pending::<u8>));
            assert_eq!(next.await, 2);
        }
        assert!(together.0.lock().is_empty());
    }
}
