//! The one task of a connection: opens its lanes, exchanges hellos, then reads, delivers and writes until it ends.

use super::BODY;
use super::busy_poll::BusyPoll;
use super::counters::Refusal;
use super::frame::{self, HELLO_VERSION, Head};
use super::hello::{Hello, HelloError, MAX_HELLO, Terms};
use super::hub::{FromConn, HubState};
use super::inbox::{Inbox, Next};
use super::link::Link;
use super::peer::PeerSession;
use super::session::{CloseReason, Rank};
use crate::util::time::clock_ms;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep, timeout};

/// The first byte of a lane's stream.
const LANE_MARKS: [u8; 2] = *b"CM";
/// Rounds before the thread's other tasks get their turn.
const ROUNDS: usize = 16;
/// How long a connection that ends may take to write what is queued.
const PARTING: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("no greeting within {0:?}")]
    Slow(Duration),
    #[error("a stream that is no lane of the bridge")]
    NoLane,
    #[error("it said goodbye: {0}")]
    Unwelcome(String),
}

pub struct Connection {
    pub id: u64,
    pub peer: PeerId,
    /// The serial number of our dial; `None`: the peer dialled.
    pub dialled: Option<u64>,
    /// The address that the peer dialled from.
    pub from: Option<IpAddr>,
}

/// Runs a connection to its end.
pub async fn run(shared: Arc<HubState>, conn: Connection, muxer: StreamMuxerBox) {
    let within = shared.config.timing.down;
    let opened = timeout(within, open(&shared, &conn, muxer)).await.unwrap_or(Err(ConnError::Slow(within)));
    let (link, terms) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            let counters = shared.peer(conn.peer).counters.clone();
            if !matches!(why, ConnError::Io(_)) {
                counters.refuse(Refusal::Hello);
            }
            tracing::info!(peer = %conn.peer, %why, "bridge: a connection came to nothing");
            return shared.tell_hub(FromConn::Failed { conn }).await;
        }
    };
    let link = Arc::new(link);
    let (tx, rx) = oneshot::channel();
    let lower = shared.me < conn.peer;
    let rank =
        Rank { dialled_by_lower_id: conn.dialled.is_some() == lower, serial: conn.dialled.unwrap_or(terms.serial) };
    let (id, peer) = (conn.id, conn.peer);
    shared.tell_hub(FromConn::Ready { conn, rank, terms, link: link.clone(), admit: tx }).await;
    let why = match rx.await {
        Ok(peer_session) => serve(&shared, &link, &peer_session, id).await,
        Err(_) => "refused".to_string(), // the hub has queued a goodbye
    };
    link.refuse_more();
    part(&link).await;
    tracing::debug!(%peer, %why, "bridge: a connection is closed");
    shared.tell_hub(FromConn::Closed { conn: id, peer }).await;
}

/// Polls the connection beside what waits for one of its streams.
async fn beside<T>(
    muxer: &mut StreamMuxerBox,
    work: impl Future<Output = Result<T, ConnError>>,
) -> Result<T, ConnError> {
    let mut work = pin!(work);
    poll_fn(|task| {
        if let Poll::Ready(done) = work.as_mut().poll(task) {
            return Poll::Ready(done);
        }
        match Pin::new(&mut *muxer).poll(task) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn open(shared: &HubState, conn: &Connection, mut muxer: StreamMuxerBox) -> Result<(Link, Terms), ConnError> {
    let mut streams = match conn.dialled {
        Some(_) => dial_lanes(&mut muxer).await?,
        None => accept_lanes(&mut muxer).await?,
    };
    let ours = shared.hello(conn.dialled.unwrap_or(0));
    let control = &mut streams[0];
    let theirs = beside(&mut muxer, async {
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes, HELLO_VERSION, &Head::Hello);
        bytes.extend_from_slice(&ours.encode());
        frame::finish(&mut bytes, start, MAX_HELLO).map_err(|_| HelloError::Unreadable)?;
        control.write_all(&bytes).await?;
        control.flush().await?;
        read_hello(control).await
    })
    .await?;
    match ours.agree(&theirs) {
        Ok(terms) => {
            let max_frame = terms.max_frame;
            Ok((Link::new(terms.version, max_frame, shared.config.bounds, muxer, streams), terms))
        }
        Err(why) => {
            // The other side finds the same by itself; it may be a version that does not know goodbyes.
            let _ = timeout(PARTING, poll_fn(|task| Pin::new(&mut muxer).poll_close(task))).await;
            Err(why.into())
        }
    }
}

async fn dial_lanes(muxer: &mut StreamMuxerBox) -> Result<[SubstreamBox; 2], ConnError> {
    let mut lane = async |mark: u8| {
        let mut stream = poll_fn(|task| Pin::new(&mut *muxer).poll_outbound(task)).await?;
        beside(muxer, async {
            stream.write_all(&[mark]).await?;
            stream.flush().await?;
            Ok(())
        })
        .await?;
        Ok::<_, ConnError>(stream)
    };
    Ok([lane(LANE_MARKS[0]).await?, lane(LANE_MARKS[1]).await?])
}

async fn accept_lanes(muxer: &mut StreamMuxerBox) -> Result<[SubstreamBox; 2], ConnError> {
    let mut lanes = [None, None];
    for _ in 0..lanes.len() {
        let mut stream = poll_fn(|task| Pin::new(&mut *muxer).poll_inbound(task)).await?;
        let mut mark = [0];
        beside(muxer, async { Ok(stream.read_exact(&mut mark).await?) }).await?;
        let lane = LANE_MARKS.iter().position(|it| *it == mark[0]).ok_or(ConnError::NoLane)?;
        lanes[lane] = Some(stream);
    }
    match lanes {
        [Some(control), Some(message)] => Ok([control, message]),
        _ => Err(ConnError::NoLane),
    }
}

/// Reads no byte beyond the hello: what follows belongs to the lane.
async fn read_hello(control: &mut SubstreamBox) -> Result<Hello, ConnError> {
    let mut bytes = vec![0; 4];
    control.read_exact(&mut bytes).await?;
    let missing = frame::missing(&bytes);
    if missing > MAX_HELLO as usize {
        return Err(HelloError::Unreadable.into());
    }
    bytes.resize(4 + missing, 0);
    control.read_exact(&mut bytes[4..]).await?;
    match frame::parse(&bytes, MAX_HELLO) {
        Ok(Some((frame, _))) if frame.head == Head::Hello => Ok(Hello::decode(frame.body)?),
        Ok(Some((frame, _))) if frame.head == Head::Goodbye => {
            let why = bincode::serde::decode_from_slice::<(bool, String), _>(frame.body, BODY);
            Err(ConnError::Unwelcome(why.map_or(String::new(), |((_, why), _)| why)))
        }
        Ok(_) | Err(_) => Err(HelloError::Unreadable.into()),
    }
}

/// The bytes that a connection has read so far.
struct Reader {
    inboxes: [Inbox; 2],
    /// While a mailbox is full.
    pause: Option<Pin<Box<Sleep>>>,
    /// Lanes on which goodbye was read.
    parted: [bool; 2],
    awake: BusyPoll,
    /// Something was read since the connection was last quiet.
    came: bool,
}

enum DriverEvent {
    /// Nothing to do, but something may come at once.
    Quiet,
    Ended(String),
    /// On both lanes: nothing comes behind it.
    Goodbye(CloseReason),
}

/// Serves the connection until it ends; returns why.
async fn serve(shared: &Arc<HubState>, link: &Arc<Link>, peer_session: &Arc<PeerSession>, id: u64) -> String {
    let mut reader = Reader {
        inboxes: [Inbox::new(0), Inbox::new(1)],
        pause: None,
        parted: [false; 2],
        awake: BusyPoll::new(),
        came: false,
    };
    loop {
        match poll_fn(|task| reader.rounds(shared, link, peer_session, task)).await {
            DriverEvent::Ended(why) => return why,
            DriverEvent::Quiet => {
                let before = Instant::now();
                std::thread::yield_now();
                reader.awake.gave_way(before, Instant::now());
                tokio::task::yield_now().await;
            }
            DriverEvent::Goodbye(why) => {
                shared.tell_hub(FromConn::Goodbye { conn: id, peer: peer_session.peer, why }).await;
            }
        }
    }
}

impl Reader {
    fn rounds(
        &mut self,
        shared: &HubState,
        link: &Link,
        peer_session: &Arc<PeerSession>,
        task: &mut Context<'_>,
    ) -> Poll<DriverEvent> {
        for _ in 0..ROUNDS {
            if link.is_closing() {
                return Poll::Ready(DriverEvent::Ended(closed_here(link, peer_session).into()));
            }
            let mut came = false;
            let driven = link.drive(task.waker(), |lane, stream, task| {
                came |= self.inboxes[lane].fill(stream, task)?;
                Ok(())
            });
            if let (Err(error), false) = (driven, came) {
                return Poll::Ready(DriverEvent::Ended(error.to_string()));
            }
            if came {
                self.came = true;
                peer_session.heard_ms.store(clock_ms(), Ordering::Relaxed);
            } else if !self.waits() {
                let came = std::mem::take(&mut self.came);
                return match self.awake.goes_on(Instant::now(), came) {
                    true => Poll::Ready(DriverEvent::Quiet),
                    false => Poll::Pending,
                };
            }
            if let Some(event) = self.take(shared, peer_session) {
                return Poll::Ready(event);
            }
            if !self.waits() {
                self.pause = None;
                continue;
            }
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(1))));
            if pause.as_mut().poll(task).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    fn waits(&self) -> bool {
        self.inboxes.iter().any(Inbox::waits)
    }

    /// Delivers all frames that are complete.
    fn take(&mut self, shared: &HubState, peer_session: &Arc<PeerSession>) -> Option<DriverEvent> {
        let mut event = None;
        for (inbox, parted) in self.inboxes.iter_mut().zip(&mut self.parted) {
            loop {
                match inbox.take_all(peer_session, &shared.exports, shared.config.max_frame) {
                    Next::Go | Next::Wait => break,
                    Next::Goodbye(why, text) => {
                        tracing::debug!(peer = %peer_session.peer, ?why, text, "bridge: goodbye");
                        if !std::mem::replace(parted, true) {
                            event = Some(why);
                        }
                    }
                    Next::Broken(refusal, why) => {
                        peer_session.counters.refuse(refusal);
                        return Some(DriverEvent::Ended(why));
                    }
                }
            }
        }
        event.filter(|_| self.parted == [true; 2]).map(DriverEvent::Goodbye)
    }
}

fn closed_here(link: &Link, peer_session: &PeerSession) -> &'static str {
    if !link.is_unread() {
        return "closed here";
    }
    peer_session.counters.refuse(Refusal::Unread);
    tracing::warn!(peer = %peer_session.peer, "bridge: it leaves its answers unread; the connection is closed, look at that node");
    "it leaves its answers unread"
}

/// Writes what is queued, then closes.
async fn part(link: &Link) {
    let rest = poll_fn(|task| match link.drive(task.waker(), |_, _, _| Ok(())) {
        Ok(true) | Err(_) => Poll::Ready(()),
        Ok(false) => Poll::Pending,
    });
    let _ = timeout(PARTING, async {
        rest.await;
        poll_fn(|task| link.poll_close(task)).await;
    })
    .await;
}
