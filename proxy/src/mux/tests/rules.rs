//! A peer that breaks the rules, or reads nothing.

use super::{
    super::{
        frame::{Frame, REFUSED, UNWANTED},
        session::{MOST_OUT, Role, Session},
    },
    *,
};

fn frames(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        frame.put(&mut out);
    }
    out
}

const HELLO: Frame<'static> = Frame::Hello { window: WINDOW, channels: MAX_CHANNELS };

#[test]
fn what_is_against_the_rules_is_an_error_and_what_comes_late_is_none() {
    let window = vec![0; WINDOW as usize];
    let (begun, rest) = window.split_at(frame::MOST);
    let many: Vec<_> = [HELLO].into_iter().chain((1..=MAX_CHANNELS).map(|id| Frame::Open(id, 0))).collect();
    let recycled: Vec<_> = many.iter().copied().chain([Frame::Reset(7, UNWANTED), Frame::Open(101, 0)]).collect();
    let one_more: Vec<_> = many.iter().copied().chain([Frame::Open(101, 0)]).collect();
    let most = i32::MAX.unsigned_abs();
    let (opens, serves) = (Role::Opens, Role::Serves);
    // The end that opens has opened channel 1.
    for (role, said, error) in [
        (serves, &[Frame::Open(1, 0)][..], "before the greeting"),
        (opens, &[Frame::Leave], "before the greeting"),
        (serves, &[HELLO, HELLO], "second greeting"),
        (opens, &[HELLO, HELLO], "second greeting"),
        (serves, &[Frame::Hello { window: most + 1, channels: 1 }], "window"),
        (opens, &[Frame::Hello { window: most + 1, channels: 1 }], "window"),
        (opens, &[HELLO, Frame::Open(2, 0)], "not the peer's to open"),
        (serves, &[HELLO, Frame::Open(2, 0), Frame::Open(1, 0)], "not the peer's to open"),
        (serves, &[HELLO, Frame::Open(2, 0), Frame::Open(2, 0)], "not the peer's to open"),
        (serves, &[HELLO, Frame::Open(0, 0)], "not the peer's to open"),
        (serves, &one_more, "more channels"),
        (serves, &recycled, ""),
        (serves, &[HELLO, Frame::Data(1, b"x")], "nobody has opened"),
        (opens, &[HELLO, Frame::Data(2, b"x")], "nobody has opened"),
        (opens, &[HELLO, Frame::End(2)], "nobody has opened"),
        (serves, &[HELLO, Frame::Credit(9, 1)], "nobody has opened"),
        (serves, &[HELLO, Frame::Reset(9, REFUSED)], "nobody has opened"),
        (opens, &[HELLO, Frame::Data(1, begun), Frame::Data(1, rest)], ""),
        (opens, &[HELLO, Frame::Data(1, begun), Frame::Data(1, rest), Frame::Data(1, b"x")], "more bytes than"),
        (opens, &[HELLO, Frame::End(1), Frame::Data(1, b"x")], "after the end"),
        (opens, &[HELLO, Frame::Credit(1, most - WINDOW)], ""),
        (opens, &[HELLO, Frame::Credit(1, most - WINDOW + 1)], "more credit"),
        (opens, &[HELLO, Frame::Credit(1, u32::MAX)], "more credit"),
        // Of a channel that is gone.
        (serves, &[HELLO, Frame::Open(5, 0), Frame::Data(4, b"x"), Frame::End(3), Frame::Credit(2, u32::MAX)], ""),
        (serves, &[HELLO, Frame::Open(5, 0), Frame::Reset(5, UNWANTED), Frame::Reset(5, UNWANTED)], ""),
        (opens, &[HELLO, Frame::End(1), Frame::End(1), Frame::Leave, Frame::Leave], ""),
        (serves, &[HELLO, Frame::Leave], ""),
    ] {
        let mut session = Session::new(role);
        if role == opens {
            assert_eq!(session.open(Carries::Http1), Some(1));
        }
        let bytes = frames(said);
        match session.receive(&bytes) {
            Ok(()) => assert_eq!(error, "", "{role:?} {said:?}"),
            Err(bad) => assert!(!error.is_empty() && bad.contains(error), "{role:?} {said:?}: {bad}"),
        }
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_ends_the_connection_and_every_channel() {
    let (mut peer, near) = tokio::io::duplex(ROOM);
    let bytes = [
        frames(&[HELLO, Frame::Open(1, 0), Frame::Data(1, b"came")]),
        frames(&[Frame::Open(1, 0)]),
        // Nobody looks at it.
        frames(&[Frame::Open(2, 0)]),
    ];
    peer.write_all(&bytes.concat()).await.unwrap();
    let (mut channels, drain) = (Vec::new(), Drain::new());
    let ended = serve(Io::Local(near).into(), drain.started(), |channel| channels.push(channel)).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(channels.len(), 1);
    let mut came = [0; 4];
    channels[0].read_exact(&mut came).await.unwrap();
    assert_eq!(&came, b"came");
    assert_eq!(read_error(&mut channels[0]).await, io::ErrorKind::InvalidData);
}

#[test]
fn of_a_peer_that_reads_nothing_no_more_is_read_than_can_be_answered() {
    // So much that an honest peer may open at once.
    let (mut peer, near) = tokio::io::duplex(frame::HEAD * MAX_CHANNELS as usize);
    let drain = Drain::new();
    let mut served = std::pin::pin!(serve(Io::Local(near).into(), drain.started(), Channel::refuse));
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let opens: Vec<_> = [HELLO].into_iter().chain((1..50_000).map(|id| Frame::Open(id, 0))).collect();
    let (bytes, mut at) = (frames(&opens), 0);
    while let Some(taken) = peer.write(&bytes[at..]).now_or_never() {
        at += taken.unwrap();
        assert!(served.as_mut().poll(&mut cx).is_pending());
    }
    assert!(at < bytes.len() / 2, "{at} of {}", bytes.len());
    // Once it reads, all goes on.
    let (mut answers, mut read) = (0, vec![0; ROOM]);
    while at < bytes.len() {
        woken.0.store(0, Ordering::Relaxed);
        answers += peer.read(&mut read).now_or_never().unwrap().unwrap();
        assert!(woken.0.load(Ordering::Relaxed) > 0, "its task learns that there is room, after {at}");
        assert!(served.as_mut().poll(&mut cx).is_pending());
        if let Some(taken) = peer.write(&bytes[at..]).now_or_never() {
            at += taken.unwrap();
            assert!(served.as_mut().poll(&mut cx).is_pending());
        }
    }
    assert!(answers > at / 2, "{answers} bytes of answers to {at}");
}

#[test]
fn who_gives_up_all_channels_and_opens_as_many_is_no_offender_and_waits_for_those_who_serve_them() {
    let (mut peer, near) = tokio::io::duplex(1 << 20);
    let (channels, drain) = (std::cell::RefCell::new(Vec::new()), Drain::new());
    let keep = |channel| channels.borrow_mut().push(channel);
    let mut served = std::pin::pin!(serve(Io::Local(near).into(), drain.started(), keep));
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut turn = |said: &[Frame<'_>]| {
        peer.write_all(&frames(said)).now_or_never().unwrap().unwrap();
        assert!(served.as_mut().poll(&mut cx).is_pending());
        channels.borrow().len()
    };
    // Given up before anybody could look at them.
    let unseen = (1..=1000).flat_map(|id| [Frame::Open(id, 0), Frame::Reset(id, UNWANTED)]);
    assert_eq!(turn(&[HELLO].into_iter().chain(unseen).collect::<Vec<_>>()), 0);
    let hundred = |n: u32| n * MAX_CHANNELS + 1..=(n + 1) * MAX_CHANNELS;
    let next = |n: u32| {
        let given_up = hundred(n - 1).filter(|id| *id > 1000).map(|id| Frame::Reset(id, UNWANTED));
        given_up.chain(hundred(n).map(|id| Frame::Open(id, 0))).collect::<Vec<_>>()
    };
    assert_eq!([10, 11, 12].map(|n| turn(&next(n))), [100, 200, 300]);
    // Nobody has let go yet.
    assert_eq!(turn(&next(13)), 300);
    woken.0.store(0, Ordering::Relaxed);
    drop(channels.borrow_mut().drain(..100));
    assert!(woken.0.load(Ordering::Relaxed) > 0);
    assert_eq!(turn(&[]), 300, "a hundred fewer, a hundred more");
}

#[test]
fn who_finds_the_connection_full_waits_until_it_is_written() {
    let (mut session, mut written) = (Session::new(Role::Opens), Vec::new());
    session.receive(&frames(&[HELLO])).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let ids: Vec<_> = (0..6).map(|_| session.open(Carries::Http1).unwrap()).collect();
    let all = vec![0; WINDOW as usize];
    let mut write = |session: &mut Session, id| session.poll_write(id, &mut cx, &[io::IoSlice::new(&all)]);
    for id in &ids[..4] {
        assert!(write(&mut session, *id).is_ready());
    }
    // As often as its task looks.
    for _ in 0..3 {
        assert!(write(&mut session, ids[4]).is_pending());
        assert!(write(&mut session, ids[5]).is_pending());
    }
    assert!(
        session.held().1 >= MOST_OUT && session.open(Carries::Http1).is_none(),
        "a channel more would not be heard of either"
    );
    session.poll_out(&mut written, &std::task::Context::from_waker(std::task::Waker::noop()));
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    assert!(write(&mut session, ids[5]).is_ready());
    assert!(session.open(Carries::Http1).is_some());
}

#[test]
fn who_reads_all_the_time_and_never_all_of_it_keeps_no_more_than_twice_what_is_unread() {
    let mut session = Session::new(Role::Serves);
    session.receive(&frames(&[HELLO, Frame::Open(1, 0), Frame::Data(1, &[0; 4000])])).unwrap();
    let waker = std::task::Waker::noop();
    let mut cx = std::task::Context::from_waker(waker);
    for turn in 0..1000 {
        session.receive(&frames(&[Frame::Data(1, &[0; 2000])])).unwrap();
        let mut room = [0; 2000];
        assert!(session.poll_read(1, &mut cx, &mut tokio::io::ReadBuf::new(&mut room)).is_ready());
        assert!(session.held().0 <= 2 * 6000, "{} after {turn}", session.held().0);
    }
}
