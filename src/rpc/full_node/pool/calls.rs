//! One call through a pool: the nodes of its plan one after the other, a second one beside a slow first, all within one
//! deadline.

use super::agree::{self, Answer, SeenHead};
use super::policy::Policy;
use super::retry::{self, Next};
use super::routes::short;
use super::{Member, NodePool};
use crate::rpc::api_info::ApiInfo;
use crate::rpc::client::{CallErrorKind, RpcCallError, RpcClient};
use crate::util::lock;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// A second node is asked when the first takes longer than it mostly does, but never sooner than this.
const HEDGE_LEAST: Duration = Duration::from_millis(100);
/// While it is not known how long the first mostly takes.
const HEDGE_UNKNOWN: Duration = Duration::from_secs(2);

/// A caller's own connections to the nodes of a pool.
pub struct PooledCalls {
    pool: NodePool,
    /// The address (miner or wallet) whose primary is asked first.
    seed: Arc<str>,
    /// By the node's id; made at the first call to it. One that left and came back, with another token say, is another member.
    clients: Mutex<HashMap<String, (Arc<Member>, RpcClient)>>,
    /// Every call goes to this node alone; to another one after most of the others contradicted it.
    pinned: Option<Mutex<Arc<Member>>>,
    /// The last head that was given to the caller.
    seen: Mutex<Option<SeenHead>>,
    /// The version of the nodes' API: v0, v1 or v2.
    version: &'static str,
}

/// All nodes in use failed a call: it goes round again after this, until its deadline.
const AFTER_ALL_FAILED: Duration = Duration::from_millis(250);

/// So long after a first answer a second node may take to agree with it.
const AGREES_WITHIN: Duration = Duration::from_secs(5);

/// Its answers never go back for a caller.
const HEAD: &str = "ChainHead";
/// The code of a verdict that is no node's own, as Lotus gives those without one.
const DISAGREE: i64 = 1;

type Try<R> = (Arc<Member>, Duration, Result<R, RpcCallError>);

impl PooledCalls {
    pub fn new(pool: NodePool, seed: &str) -> PooledCalls {
        PooledCalls::of_version(pool, seed, "v1")
    }

    pub fn of_version(pool: NodePool, seed: &str, version: &'static str) -> PooledCalls {
        PooledCalls {
            pool,
            seed: seed.into(),
            clients: Mutex::default(),
            pinned: None,
            seen: Mutex::default(),
            version,
        }
    }

    pub fn pool(&self) -> &NodePool {
        &self.pool
    }

    /// Calls to the one node that `method` would be sent to first; while none can be used, to the primary. `None`: the pool is
    /// empty.
    pub fn pinned_for(&self, method: &str) -> Option<PooledCalls> {
        let pinned = match self.pool.only() {
            Some(only) => only,
            None => {
                let first = self.pool.plan(method, &self.seed).nodes.into_iter().next();
                first.or_else(|| self.pool.primary(&self.seed))?
            }
        };
        let clients = Mutex::new(lock(&self.clients).clone());
        let (pool, seed, pinned) = (self.pool.clone(), self.seed.clone(), Some(Mutex::new(pinned)));
        Some(PooledCalls { pool, seed, clients, pinned, seen: Mutex::default(), version: self.version })
    }

    /// The address of the node that it is pinned to.
    pub fn address(&self) -> Option<ApiInfo> {
        self.pinned()?.info.clone()
    }

    fn pinned(&self) -> Option<Arc<Member>> {
        self.pinned.as_ref().map(|pinned| lock(pinned).clone())
    }

    /// How logs and errors name what is behind it.
    pub fn name(&self) -> String {
        if let Some(pinned) = self.pinned() {
            return pinned.name.clone();
        }
        match self.pool.members().as_slice() {
            [] => "an empty pool of full nodes".to_string(),
            [only] => only.name.clone(),
            [first, rest @ ..] => format!("{} and {} more", first.name, rest.len()),
        }
    }

    fn client(&self, member: &Arc<Member>) -> Result<RpcClient, RpcCallError> {
        let mut clients = lock(&self.clients);
        if let Some((_, client)) = clients.get(&member.id).filter(|(of, _)| Arc::ptr_eq(of, member)) {
            return Ok(client.clone());
        }
        let Some(info) = &member.info else {
            let kind = CallErrorKind::Unreachable("it has no address".into());
            return Err(RpcCallError { node: member.name.clone(), method: "connect".into(), kind });
        };
        let client = RpcClient::new(info, self.version)?;
        clients.insert(member.id.clone(), (member.clone(), client.clone()));
        Ok(client)
    }

    fn error(&self, method: &str, kind: CallErrorKind) -> RpcCallError {
        RpcCallError { node: self.name(), method: method.into(), kind }
    }

    /// `within`: how long a call of this kind may take, over all tries, unless its route says otherwise.
    pub async fn call<R: DeserializeOwned + Send + 'static>(
        &self,
        method: &str,
        params: Vec<Value>,
        within: Duration,
    ) -> Result<R, RpcCallError> {
        let only = self.pool.only();
        // Others have a voice in what the node answers that the caller is pinned to.
        let asks_others = only.is_none() && self.pool.is_agreed(method);
        let pinned = self.pinned();
        if let Some(only) = pinned.clone().filter(|_| !asks_others).or(only) {
            self.pool.count(method);
            let params: Arc<[Value]> = params.into();
            let ended = self.attempt(only, method, &params, Instant::now() + within).await;
            return self.ended(short(method), ended).map(|(_, value)| value).map_err(|(_, error)| error);
        }
        let began = Instant::now();
        let mut changed = self.pool.watch();
        let params: Arc<[Value]> = params.into();
        loop {
            changed.borrow_and_update();
            let plan = self.pool.plan(method, &self.seed);
            let within = if plan.route.timeout.is_zero() { within } else { plan.route.timeout };
            let mut nodes = plan.nodes;
            if let Some(pinned) = &pinned {
                nodes.retain(|node| node.id != pinned.id);
                nodes.insert(0, pinned.clone());
            }
            if !nodes.is_empty() {
                let until = began + within;
                let answer = match plan.route.policy {
                    _ if asks_others => self.ask_two(method, params.clone(), nodes, until).await,
                    Policy::AllWithFirstSucceed => self.ask_all(method, params.clone(), nodes, until).await,
                    _ if short(method) == HEAD => self.ask_head(method, params.clone(), nodes, until).await,
                    _ => self.ask(method, params.clone(), nodes, until).await.map(|(_, value)| value),
                };
                let error = match answer {
                    Ok(value) => return Ok(value),
                    Err(told) => told.unwrap_or_else(|| self.error(method, CallErrorKind::Timeout(within))),
                };
                // Nodes that are healthy again may not be in use yet: after their next check they are.
                let failed = retry::next(short(method), &error.kind) == Next::OtherNode;
                if !failed || plan.route.no_hang || Instant::now() + AFTER_ALL_FAILED >= until {
                    return Err(error);
                }
                self.pool.suspect();
                sleep(AFTER_ALL_FAILED).await;
                continue;
            }
            self.pool.suspect();
            let wait = async { changed.changed().await };
            if plan.route.no_hang || timeout_at(began + within, wait).await.is_err() {
                return Err(self.error(method, CallErrorKind::Unreachable(self.pool.why_none())));
            }
        }
    }

    fn attempt<R: DeserializeOwned + Send + 'static>(
        &self,
        member: Arc<Member>,
        method: &str,
        params: &Arc<[Value]>,
        until: Instant,
    ) -> impl Future<Output = Try<R>> + Send + 'static {
        let (client, method, params) = (self.client(&member), method.to_string(), params.clone());
        member.called();
        async move {
            let began = Instant::now();
            let answer = match client {
                Ok(client) => client.call_with(&method, &params, until.saturating_duration_since(began)).await,
                Err(error) => Err(error),
            };
            (member, began.elapsed(), answer)
        }
    }

    /// Remembers how a try ended; the error, and how the pool goes on after it.
    fn ended<R>(&self, method: &str, (member, took, answer): Try<R>) -> Result<(Arc<Member>, R), (Next, RpcCallError)> {
        let error = match answer {
            Ok(value) => {
                member.remember(method, |known| known.answered(took));
                return Ok((member, value));
            }
            Err(error) => error,
        };
        let next = retry::next(method, &error.kind);
        match next {
            Next::OtherNode => {
                member.remember(method, |known| known.failed(Instant::now()));
                member.suspect();
            }
            Next::Answer | Next::OtherMayKnow => member.remember(method, |known| known.answered(took)),
        }
        Err((next, error))
    }

    /// Asks `nodes` until one gives an answer that counts.
    async fn ask<R: DeserializeOwned + Send + 'static>(
        &self,
        method: &str,
        params: Arc<[Value]>,
        nodes: Vec<Arc<Member>>,
        until: Instant,
    ) -> Result<(Arc<Member>, R), Option<RpcCallError>> {
        let name = short(method);
        let hedges = retry::may_repeat(name) && !retry::waits(name);
        let mut waiting = nodes.into_iter();
        let mut running = FuturesUnordered::new();
        let (mut hedge_at, mut told) = (until, Told::default());
        loop {
            if (running.is_empty() || (hedges && Instant::now() >= hedge_at))
                && let Some(member) = waiting.next()
            {
                hedge_at = Instant::now() + member.p95(name).map_or(HEDGE_UNKNOWN, |p95| p95.max(HEDGE_LEAST));
                running.push(self.attempt::<R>(member, method, &params, until));
            }
            let hedge = async {
                match hedges && waiting.len() > 0 {
                    true => sleep_until(hedge_at).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = running.next() => match ended.map(|ended| self.ended(name, ended)) {
                    None => return Err(told.0.map(|(_, error)| error)),
                    Some(Ok(answered)) => return Ok(answered),
                    Some(Err((Next::Answer, error))) => return Err(Some(error)),
                    Some(Err(failed)) => told.hear(failed),
                },
                () = hedge => {}
                () = sleep_until(until) => return Err(told.0.map(|(_, error)| error)),
            }
        }
    }

    /// As [`Self::ask`], but no head that is lower than the last one: of another node, which is behind. Where all others are,
    /// the caller gets the last one again, for a while.
    async fn ask_head<R: DeserializeOwned + Send + 'static>(
        &self,
        method: &str,
        params: Arc<[Value]>,
        mut nodes: Vec<Arc<Member>>,
        until: Instant,
    ) -> Result<R, Option<RpcCallError>> {
        let mut lower = None;
        while !nodes.is_empty() {
            let asked = self.ask::<Answer<R>>(method, params.clone(), nodes.clone(), until).await;
            let (member, answer) = match asked {
                Ok(answered) => answered,
                Err(error) if lower.is_none() => return Err(error),
                Err(_) => break,
            };
            let (mut seen, now) = (lock(&self.seen), Instant::now());
            if seen.as_ref().is_none_or(|seen| seen.may_be_followed(&member.id, &answer.raw, now)) {
                *seen = Some(SeenHead::new(&member.id, answer.raw, now));
                return Ok(answer.read);
            }
            nodes.retain(|node| node.id != member.id);
            lower = Some(answer.read);
        }
        let again = lock(&self.seen).as_ref().and_then(|seen| serde_json::from_str(seen.head.as_str()).ok());
        again.or(lower).ok_or(None)
    }

    /// Asks until two of `nodes` give the same answer. One answer alone counts where no other node gives any.
    async fn ask_two<R: DeserializeOwned + Send + 'static>(
        &self,
        method: &str,
        params: Arc<[Value]>,
        nodes: Vec<Arc<Member>>,
        until: Instant,
    ) -> Result<R, Option<RpcCallError>> {
        let name = short(method);
        let mut waiting = nodes.into_iter();
        let mut running = FuturesUnordered::new();
        let mut answers: Vec<(Arc<Member>, Answer<R>)> = Vec::new();
        let (mut hedge_at, mut until, mut told) = (until, until, Told::default());
        let mut wanted = 2;
        loop {
            while wanted > 0 {
                wanted -= 1;
                let Some(member) = waiting.next() else { break };
                hedge_at = Instant::now() + member.p95(name).map_or(HEDGE_UNKNOWN, |p95| p95.max(HEDGE_LEAST));
                running.push(self.attempt::<Answer<R>>(member, method, &params, until));
            }
            let ended = tokio::select! {
                ended = running.next() => ended,
                () = sleep_until(hedge_at), if waiting.len() > 0 => {
                    wanted = 1;
                    continue;
                }
                () = sleep_until(until) => None,
            };
            match ended.map(|ended| self.ended(name, ended)) {
                None => break,
                Some(Err(failed)) => {
                    told.hear(failed);
                    wanted = 1;
                }
                Some(Ok((member, answer))) => {
                    if let Some((first, _)) = answers.iter().find(|(_, other)| agree::is_same(&other.raw, &answer.raw))
                    {
                        self.outvote(name, [first, &member], &answers);
                        return Ok(answer.read);
                    }
                    wanted = usize::from(!answers.is_empty());
                    until = until.min(Instant::now() + AGREES_WITHIN);
                    answers.push((member, answer));
                }
            }
        }
        if answers.len() > 1 {
            let nodes: Vec<&str> = answers.iter().map(|(member, _)| member.host.as_str()).collect();
            let message = format!("no two full nodes agree ({} differ)", nodes.join(", "));
            tracing::warn!(method = name, "{message}");
            return Err(Some(self.error(method, CallErrorKind::Rpc { code: DISAGREE, message })));
        }
        answers.pop().map(|(_, answer)| answer.read).ok_or(told.0.map(|(_, error)| error))
    }

    /// Tells of the nodes that gave another answer than the two that agree. A caller that is pinned to one of them goes on
    /// with one of the two: what follows from the answer must stand on the chain that gave it.
    fn outvote<R>(&self, method: &str, agree: [&Arc<Member>; 2], answers: &[(Arc<Member>, Answer<R>)]) {
        for (other, _) in answers.iter().filter(|(other, _)| agree.iter().all(|member| member.id != other.id)) {
            let [one, two] = agree.map(|member| member.host.as_str());
            tracing::warn!(method, "full node {} gives another answer than {one} and {two}, which agree", other.host);
            if let Some(pinned) = &self.pinned {
                let mut pinned = lock(pinned);
                if pinned.id == other.id {
                    *pinned = agree[0].clone();
                }
            }
        }
    }

    /// Asks all `nodes` at once, for the first success. The others go on after it, so that each gets what was sent.
    async fn ask_all<R: DeserializeOwned + Send + 'static>(
        &self,
        method: &str,
        params: Arc<[Value]>,
        nodes: Vec<Arc<Member>>,
        until: Instant,
    ) -> Result<R, Option<RpcCallError>> {
        let (tell, mut answers) = mpsc::channel(nodes.len().max(1));
        for member in nodes {
            let (attempt, tell) = (self.attempt::<R>(member, method, &params, until), tell.clone());
            tokio::spawn(async move {
                let _ = tell.send(attempt.await).await;
            });
        }
        drop(tell);
        let mut told = Told::default();
        while let Ok(Some(ended)) = timeout_at(until, answers.recv()).await {
            match self.ended(short(method), ended) {
                Ok((_, value)) => return Ok(value),
                Err(failed) => told.hear(failed),
            }
        }
        Err(told.0.map(|(_, error)| error))
    }
}

/// The error that is told when no node answers: a verdict before a fault, of equals the first.
#[derive(Default)]
struct Told(Option<(Next, RpcCallError)>);

impl Told {
    fn hear(&mut self, (next, error): (Next, RpcCallError)) {
        let is_better = match &self.0 {
            None => true,
            Some((before, _)) => *before == Next::OtherNode && next != Next::OtherNode,
        };
        if is_better {
            self.0 = Some((next, error));
        }
    }
}
