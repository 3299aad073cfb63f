//! Keeps the view up to date: the whole table once, then every change; all over again when the stream breaks.

use super::Shared;
use super::table::{self, Change};
use crate::rpc::directory::etcd::keys::Key;
use crate::rpc::directory::{DirectoryError, View};
use etcd_client::{EventType, GetOptions, GetResponse, WatchOptions, WatchResponse};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Between two tries while etcd is out of reach.
const PAUSE: Duration = Duration::from_millis(250);

/// Follows from a revision on that the view already has, if it has one. Never ends by itself.
pub(super) async fn run(shared: Arc<Shared>, mut known: Option<i64>) {
    // Streams that broke without having shown one sign of life.
    let mut barren = 0;
    loop {
        let result = match known.take() {
            Some(revision) => follow(&shared, revision, &mut barren).await,
            None => match read(&shared).await {
                Ok(revision) => follow(&shared, revision, &mut barren).await,
                Err(error) => {
                    barren += 2;
                    Err(error)
                }
            },
        };
        let Err(error) = result;
        if barren < 2 {
            tracing::debug!("etcd: reading the directory anew: {error}");
            continue;
        }
        shared.contact(false, Some(&error));
        sleep(PAUSE).await;
    }
}

/// The whole table; its revision.
pub(super) async fn read(shared: &Shared) -> Result<i64, DirectoryError> {
    let (from, to) = shared.connection.keys.range();
    let all = shared.connection.call_patiently(|mut client| {
        let (from, options) = (from.clone(), GetOptions::new().with_range(to.clone()));
        async move { client.get(from, Some(options)).await }
    });
    let all = all.await?;
    let revision = all.header().map_or(0, |header| header.revision());
    shared.change(|view| *view = replaced(shared, view, &all));
    shared.forget_lost(table::epoch(revision));
    Ok(revision)
}

fn replaced(shared: &Shared, before: &View, all: &GetResponse) -> View {
    let rows = all.kvs().iter().filter_map(|kv| Some((kv.key_str().ok()?, kv.value(), kv.create_revision())));
    table::replace(&shared.connection.keys, before, rows, Instant::now())
}

enum Never {}

async fn follow(shared: &Shared, revision: i64, barren: &mut u32) -> Result<Never, DirectoryError> {
    *barren += 1;
    let connection = &shared.connection;
    let (beat, limit) = (connection.config.beat(), connection.config.attempt());
    let (at, mut client) = connection.pick().await?;
    let (from, to) = connection.keys.range();
    let options = WatchOptions::new().with_range(to).with_start_revision(revision + 1);
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
            // What we have seen was compacted away, or the member has no leader: both mean reading anew.
            connection.failed(at).await;
            let why = format!("the watch ended: {}", answer.cancel_reason());
            return Err(DirectoryError::Unreachable { why });
        }
        *barren = 0;
        deadline = Instant::now() + beat + limit;
        if shared.view.borrow().in_contact && answer.events().is_empty() {
            continue;
        }
        shared.contact(true, None);
        apply(shared, &answer);
    }
}

fn apply(shared: &Shared, answer: &WatchResponse) {
    let (keys, now) = (&shared.connection.keys, Instant::now());
    shared.change(|view| {
        for event in answer.events() {
            let Some((kv, key)) = event.kv().and_then(|kv| Some((kv, kv.key_str().ok()?))) else { continue };
            let change = match event.event_type() {
                EventType::Put => Change::Put { key, value: kv.value(), created: kv.create_revision() },
                EventType::Delete => Change::Delete { key },
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
