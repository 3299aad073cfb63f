//! Keeps the view up to date: the whole table once, then every change. When the stream breaks, it goes on after the last
//! change that was seen: a thousand nodes that all read a thousand records anew would break the next stream as well.

use super::history::Answer;
use super::state::EtcdState;
use super::table::{self, TableChange};
use crate::rpc::directory::etcd::keys::Key;
use crate::rpc::directory::{DirectoryError, View};
use etcd_client::{EventType, GetOptions, GetResponse, WatchOptions, WatchResponse};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Between two tries while etcd is out of reach.
const PAUSE: Duration = Duration::from_millis(250);

/// How far the view is.
#[derive(Clone, Copy)]
enum Known {
    /// Not known, or out of contact since: read the whole table.
    Nothing,
    /// The whole table of this revision was just read.
    Read(i64),
    /// Every change up to this revision was seen until a stream broke.
    Followed(i64),
}

/// Follows from a revision on that the view already has, if it has one. Never ends by itself.
pub(super) async fn run(shared: Arc<EtcdState>, revision: Option<i64>) {
    let mut known = revision.map_or(Known::Nothing, Known::Read);
    // Streams that broke without having shown one sign of life.
    let mut barren = 0;
    let mut put_back = shared.put_back.subscribe();
    loop {
        let begun = match known {
            Known::Read(revision) => Ok((revision, false)),
            Known::Followed(revision) => Ok((revision, true)),
            Known::Nothing => {
                put_back.mark_unchanged(); // what is read now is read after it
                read(&shared).await.map(|revision| (revision, false))
            }
        };
        let error = match begun {
            Err(error) => error,
            Ok((revision, resumed)) => {
                let mut following = Following { revision, resumed, alive: false, behind: false };
                let Err(error) = follow(&shared, &mut following, &mut put_back).await;
                barren = if following.alive { 0 } else { barren + 1 };
                known = match following.behind || barren > 1 {
                    true => Known::Nothing,
                    false => Known::Followed(following.revision),
                };
                if barren < 2 {
                    tracing::debug!("etcd: following the directory anew: {error}");
                    continue;
                }
                error
            }
        };
        shared.contact(false, Some(&error));
        sleep(PAUSE).await;
    }
}

/// The whole table; its revision.
pub(super) async fn read(shared: &EtcdState) -> Result<i64, DirectoryError> {
    let (from, to) = shared.connection.keys.range();
    let asked = shared.ask();
    let all = shared.connection.call_patiently(|mut client| {
        let (from, options) = (from.clone(), GetOptions::new().with_range(to.clone()));
        async move { client.get(from, Some(options)).await }
    });
    let all = all.await?;
    if shared.learn(asked, all.header()) == Answer::Stale {
        return Err(DirectoryError::PutBack);
    }
    let revision = all.header().map_or(0, |header| header.revision());
    shared.change(|view| *view = replaced(shared, view, &all));
    shared.forget_lost(table::epoch(revision));
    Ok(revision)
}

fn replaced(shared: &EtcdState, before: &View, all: &GetResponse) -> View {
    let rows = all.kvs().iter().filter_map(|kv| Some((kv.key_str().ok()?, kv.value(), kv.create_revision())));
    table::replace(&shared.connection.keys, before, rows, Instant::now())
}

enum Never {}

/// One stream.
struct Following {
    /// Seen up to here.
    revision: i64,
    /// The stream before it broke.
    resumed: bool,
    /// It showed a sign of life.
    alive: bool,
    /// True when the changes after `revision` cannot be had.
    behind: bool,
}

async fn follow(
    shared: &EtcdState,
    seen: &mut Following,
    put_back: &mut watch::Receiver<Option<Instant>>,
) -> Result<Never, DirectoryError> {
    let connection = &shared.connection;
    let (beat, limit) = (connection.config.beat(), connection.config.attempt());
    let (at, mut client) = connection.pick().await?;
    let (from, to) = connection.keys.range();
    let options = WatchOptions::new().with_range(to).with_start_revision(seen.revision + 1);
    let stream = match timeout(limit, client.watch(from, Some(options))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(connection.stream_failed(at, &error).await),
        Err(_) => return Err(connection.silent(at, limit).await),
    };
    let (mut asks, mut answers) = stream.split();
    // A stream on which nothing changes looks like one whose member is frozen: ask for a sign of life.
    let mut tick = interval(beat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deadline = Instant::now() + limit;
    loop {
        let answer = tokio::select! {
            // What follows on this stream is of another history than what was read.
            Ok(()) = put_back.changed() => {
                seen.behind = true;
                return Err(DirectoryError::PutBack);
            }
            answer = timeout(deadline.saturating_duration_since(Instant::now()), answers.message()) => answer,
            _ = tick.tick() => {
                if let Err(error) = asks.request_progress().await {
                    return Err(connection.stream_failed(at, &error).await);
                }
                continue;
            }
        };
        let answer = match answer {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Err(connection.silent(at, Duration::ZERO).await),
            Ok(Err(error)) => return Err(connection.stream_failed(at, &error).await),
            Err(_) => return Err(connection.silent(at, limit).await),
        };
        if answer.canceled() {
            // What we have not seen was compacted away, or the member has no leader: both mean reading anew.
            seen.behind = true;
            connection.failed(at).await;
            let why = format!("the watch ended: {}", answer.cancel_reason());
            return Err(DirectoryError::Unreachable { why });
        }
        let revision = answer.header().map_or(0, |header| header.revision());
        if seen.resumed && revision < seen.revision {
            // A member that lags behind, or an etcd that was restored from a backup, of which no change would ever reach us.
            seen.behind = true;
            let why = format!("it is at revision {revision}, we have seen {}", seen.revision);
            return Err(DirectoryError::Unreachable { why });
        }
        seen.alive = true;
        deadline = Instant::now() + beat + limit;
        if shared.view.borrow().in_contact && answer.events().is_empty() {
            continue;
        }
        shared.contact(true, None);
        apply(shared, &answer);
        let last = answer.events().iter().filter_map(|event| event.kv()).map(|kv| kv.mod_revision()).max();
        seen.revision = seen.revision.max(last.unwrap_or_default());
    }
}

fn apply(shared: &EtcdState, answer: &WatchResponse) {
    let (keys, now) = (&shared.connection.keys, Instant::now());
    shared.change(|view| {
        for event in answer.events() {
            let Some((kv, key)) = event.kv().and_then(|kv| Some((kv, kv.key_str().ok()?))) else { continue };
            let change = match event.event_type() {
                EventType::Put => TableChange::Put { key, value: kv.value(), created: kv.create_revision() },
                EventType::Delete => TableChange::Delete { key },
            };
            table::apply(keys, view, change, now);
        }
    });
    for event in answer.events().iter().filter(|event| event.event_type() == EventType::Delete) {
        let Some(kv) = event.kv() else { continue };
        if let Some(Key::Lease(concern)) = kv.key_str().ok().and_then(|key| keys.parse(key)) {
            shared.holds().deleted(concern, table::epoch(kv.mod_revision()));
        }
    }
}
