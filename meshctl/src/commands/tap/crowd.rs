//! The proxies that a tap listens to: those that are there when it begins, those that come later, and those that come back.
//! What they show comes through one channel, in the order in which it came in.

use std::time::Duration;

use futures_util::future::join_all;
use mesh_proto::{
    client::CallError,
    tap::{TapEvent, TapFilter},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::screen::Tapped;
use crate::{
    cluster::{Cluster, PodInfo},
    commands::admin,
    failure::{Exit, Failure},
    golden::samples::Samples,
};

/// Lines that wait for a slow terminal; beyond, proxies wait and then drop and count.
const QUEUE: usize = 1_024;
/// Between two looks at which pods there are.
const LOOK: Duration = Duration::from_secs(2);
/// A cluster is asked for its pods at most this part of the time: a list of thousands is no small question.
const SHARE: u32 = 20;
/// Longest that the count in the last line may keep a person who wants to see something, or to leave.
const READING: Duration = Duration::from_secs(1);

/// What is heard, and from whom: its place in the crowd.
#[derive(Debug)]
pub(super) enum News {
    /// The proxy has begun to tell.
    Begun(usize),
    /// What it shows.
    Event(usize, Box<TapEvent>),
    /// It tells no more, and why.
    Ended(usize, Failure),
    /// The pods there are now.
    Pods(Vec<PodInfo>),
}

/// A proxy.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pod: PodInfo,
    /// What it had counted when it was first tapped.
    before: Option<Samples>,
    /// It is asked, or tells.
    listens: bool,
    /// It has told at some time.
    begun: bool,
    /// Why it does not tell, once that was said.
    told: bool,
    /// Its pod is no more.
    gone: bool,
}

/// Everybody who is tapped. Dropping it ends all taps.
pub(super) struct Crowd {
    cluster: Cluster,
    filter: TapFilter,
    sender: mpsc::Sender<News>,
    tasks: JoinSet<()>,
    members: Vec<Member>,
}

/// What another look at the pods comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Pods that nobody knew.
    come: Vec<PodInfo>,
    /// Members that are there and do not tell, to be asked again.
    again: Vec<(usize, PodInfo)>,
    /// Members whose pods are no more.
    gone: Vec<usize>,
}

impl Crowd {
    /// Nobody yet, and the channel on which they will be heard.
    pub(super) fn new(cluster: &Cluster, filter: TapFilter) -> (Self, mpsc::Receiver<News>) {
        let (sender, news) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(look(cluster.clone(), sender.clone()));
        (Self { cluster: cluster.clone(), filter, sender, tasks, members: Vec::new() }, news)
    }

    /// Listens to one more; `before` is what it has counted, if that is known.
    pub(super) fn join(&mut self, pod: PodInfo, before: Option<Samples>) {
        let place = self.members.len();
        self.members.push(Member { pod, before, listens: false, begun: false, told: false, gone: false });
        self.listen(place);
    }

    fn listen(&mut self, place: usize) {
        self.members[place].listens = true;
        let (cluster, filter, sender) = (self.cluster.clone(), self.filter.clone(), self.sender.clone());
        let pod = self.members[place].pod.clone();
        self.tasks.spawn(async move {
            let failure = watch(&cluster, &pod, &filter, place, &sender).await;
            // Nobody is left to tell where this fails.
            let _ = sender.send(News::Ended(place, failure)).await;
        });
        // Of those that have ended nothing is kept.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Whether a proxy that was lost tells again.
    pub(super) fn begun(&mut self, place: usize) -> bool {
        let member = &mut self.members[place];
        member.begun = true;
        std::mem::take(&mut member.told)
    }

    /// Takes note that one tells no more. What is worth a word now: that it never began, unless its pod just starts. Of one
    /// that had begun it is seen at the next look whether its pod is gone.
    pub(super) fn ended(&mut self, place: usize) -> bool {
        let member = &mut self.members[place];
        member.listens = false;
        !member.begun && member.pod.ready && !std::mem::replace(&mut member.told, true)
    }

    /// Whether nobody tells, nor may begin to.
    pub(super) fn is_silent(&self) -> bool {
        self.members.iter().all(|member| !member.listens)
    }

    /// Whether somebody has told at some time.
    pub(super) fn has_begun(&self) -> bool {
        self.members.iter().any(|member| member.begun)
    }

    /// Those who tell or may begin to, of those whose pods are there.
    pub(super) fn tapped(&self) -> Tapped {
        let there = self.members.iter().filter(|member| !member.gone || member.begun);
        let lost = self.members.iter().filter(|member| !member.gone && !member.listens).count();
        let pods = there.count();
        Tapped { of: pods - lost, pods }
    }

    /// Follows a look at the pods that are meant; gives what to say of it, and who is new.
    pub(super) fn follow(&mut self, pods: Vec<PodInfo>) -> (Vec<String>, Vec<PodInfo>) {
        let Changes { come, again, gone } = changes(&self.members, pods);
        let mut words = Vec::new();
        for place in gone {
            let member = &mut self.members[place];
            member.gone = true;
            words.push(format!("pod {} is gone", name(&member.pod)));
        }
        for (place, pod) in again {
            let member = &mut self.members[place];
            (member.pod, member.gone) = (pod, false);
            if member.begun && !std::mem::replace(&mut member.told, true) {
                words.push(format!("tap of pod {} has ended, it is asked again", name(&member.pod)));
            }
            self.listen(place);
        }
        for pod in &come {
            words.push(format!("pod {} is new, it is tapped too", name(pod)));
            // It counts from zero.
            self.join(pod.clone(), Some(Samples::default()));
        }
        (words, come)
    }

    pub(super) fn name(&self, place: usize) -> String {
        name(&self.members[place].pod)
    }

    /// What each has counted before, and now; none where it does not say.
    pub(super) async fn readings(self) -> Vec<(Option<Samples>, Option<Samples>)> {
        let Self { cluster, members, .. } = self;
        let read = |member: Member| {
            let cluster = cluster.clone();
            async move {
                let after = if member.listens { reading(&cluster, &member.pod).await } else { None };
                (member.before, after)
            }
        };
        join_all(members.into_iter().map(read)).await
    }
}

/// What a proxy has counted; none where it does not say.
pub(super) async fn reading(cluster: &Cluster, pod: &PodInfo) -> Option<Samples> {
    let page = tokio::time::timeout(READING, admin::get(cluster, pod, "/metrics")).await;
    page.ok()?.ok().map(|text| Samples::parse(&text))
}

fn name(pod: &PodInfo) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// Compares who is known with who is there. Pure.
fn changes(members: &[Member], pods: Vec<PodInfo>) -> Changes {
    let mut changes = Changes::default();
    for (place, member) in members.iter().enumerate() {
        let is_there = pods.iter().any(|pod| name(pod) == name(&member.pod));
        if !is_there && !member.listens && !member.gone {
            changes.gone.push(place);
        }
    }
    for pod in pods {
        match members.iter().position(|member| name(&member.pod) == name(&pod)) {
            None => changes.come.push(pod),
            Some(place) if !members[place].listens => changes.again.push((place, pod)),
            Some(_) => {}
        }
    }
    changes
}

/// Looks which pods there are, again and again.
async fn look(cluster: Cluster, news: mpsc::Sender<News>) {
    let mut pause = LOOK;
    loop {
        tokio::time::sleep(pause).await;
        let asked = Instant::now();
        // An API server that is away now is asked again.
        let pods = cluster.pods(None).await;
        pause = LOOK.max(asked.elapsed() * SHARE);
        if let Ok(pods) = pods
            && news.send(News::Pods(pods)).await.is_err()
        {
            return;
        }
    }
}

/// Hands on what a proxy shows; returns why it shows no more.
async fn watch(
    cluster: &Cluster,
    pod: &PodInfo,
    filter: &TapFilter,
    place: usize,
    news: &mpsc::Sender<News>,
) -> Failure {
    let unreachable = |error: CallError| Failure::new(Exit::Unreachable, error.to_string());
    let limit = cluster.limit();
    let begun = tokio::time::timeout(limit, async {
        let mut client = admin::tap(cluster, pod).await?;
        client.watch(filter.clone()).await.map_err(unreachable)
    });
    let late = || {
        Failure::new(Exit::TimedOut, format!("timed out: the proxy did not answer within {limit:?}"))
            .fix(format!("meshctl check{} --proxy -o short says what is wrong there", cluster.option()))
    };
    let mut stream = match begun.await.unwrap_or_else(|_| Err(late())) {
        Ok(stream) => stream,
        Err(failure) => return failure,
    };
    let ended = || Failure::new(Exit::Unreachable, "the proxy ended the tap");
    if news.send(News::Begun(place)).await.is_err() {
        return ended();
    }
    loop {
        match stream.next().await {
            // A proxy of an older release does not know every filter.
            Ok(Some(event)) if !filter.matches(&event) => {}
            Ok(Some(event)) => {
                if news.send(News::Event(place, Box::new(event))).await.is_err() {
                    return ended();
                }
            }
            Ok(None) => return ended(),
            Err(error) => return unreachable(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture;

    fn member(pod: &PodInfo, listens: bool) -> Member {
        Member { pod: pod.clone(), before: None, listens, begun: true, told: false, gone: false }
    }

    #[test]
    fn who_comes_is_tapped_who_is_there_and_silent_is_asked_again_and_who_left_is_gone() {
        let pod = |name| fixture::pod(name, Some("web"), true, "10.0.0.1");
        let members = [member(&pod("tells"), true), member(&pod("silent"), false), member(&pod("left"), false)];
        let there = vec![pod("tells"), pod("silent"), pod("new")];
        let expected = Changes { come: vec![pod("new")], again: vec![(1, pod("silent"))], gone: vec![2] };
        assert_eq!(changes(&members, there), expected);
        // One that still tells is not gone, whatever the list says.
        assert_eq!(changes(&members[..1], Vec::new()), Changes::default());
        let gone = [Member { gone: true, ..member(&pod("left"), false) }];
        assert_eq!(changes(&gone, Vec::new()), Changes::default(), "that was said");
        assert_eq!(changes(&gone, vec![pod("left")]).again, [(0, pod("left"))], "a name may come back");
    }
}
