//! The share of callers without a token in the work of a server: few of their calls at a time, and little memory for their
//! answers. Everybody may read, and what is read is asked of actors and of full nodes, which proving needs as well.

use super::envelope::RpcError;
use crate::rpc::full_node::pool::retry;
use crate::rpc::full_node::pool::routes::short;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls that run at a time, all callers without a token together. An actor's mailbox takes 256 messages: most of it stays
/// free for what it is there for, whatever they ask.
const CALLS: usize = 16;
/// Calls that wait for something to happen on the chain, and so keep their turn for long.
const WAITING: usize = 64;
/// Channels of theirs that have a source of their own: a connection to a full node, most likely.
const CHANNELS: usize = 16;
/// A call that has waited for so long for its turn is refused.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of their large answers in memory, from when an answer is made to when it is sent.
const ANSWERS: usize = 64 << 20;
/// An answer up to this size needs no room of [`ANSWERS`].
const SMALL: usize = 64 << 10;
/// The unit of that room.
const BLOCK: usize = 64 << 10;
/// Bytes that are given to the socket at a time: an answer keeps its room while its caller does not read it.
const PIECE: usize = 64 << 10;

/// Shared by all connections of one server.
#[derive(Clone)]
pub struct Strangers {
    calls: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    channels: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    turn_within: Duration,
}

/// The right of one call to run; `None` of a caller with a token.
pub struct Turn(#[allow(dead_code, reason = "it is held, not read")] Option<OwnedSemaphorePermit>);

/// Room for an answer until that is sent; `None`: it needs none.
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl Strangers {
    pub fn new() -> Strangers {
        Strangers::with(CALLS, ANSWERS, TURN_WITHIN)
    }

    fn with(calls: usize, answers: usize, turn_within: Duration) -> Strangers {
        let room = |places: usize| Arc::new(Semaphore::new(places));
        let (calls, answers) = (room(calls), room(answers / BLOCK));
        Strangers { calls, waiting: room(WAITING), channels: room(CHANNELS), answers, turn_within }
    }

    /// Waits for the turn of a call; first come, first served. `known`: the caller has shown a token.
    pub async fn turn(&self, known: bool, method: &str) -> Result<Turn, RpcError> {
        if known {
            return Ok(Turn(None));
        }
        let turns = if retry::waits(short(method)) { &self.waiting } else { &self.calls };
        match tokio::time::timeout(self.turn_within, turns.clone().acquire_owned()).await {
            Ok(turn) => Ok(Turn(turn.ok())), // never closed
            Err(_) => Err(busy("too many calls without a token at once; try again, or send a token")),
        }
    }

    /// The right to open a channel, kept as long as that is open. Those of heads share one feed, and need none.
    pub fn channel(&self, known: bool, method: &str) -> Result<Turn, RpcError> {
        if known || short(method) == "ChainNotify" {
            return Ok(Turn(None));
        }
        let full = |_| busy("too many channels without a token at once; try again, or send a token");
        self.channels.clone().try_acquire_owned().map(|turn| Turn(Some(turn))).map_err(full)
    }

    /// Makes the room that an answer has into one for so many bytes in all.
    pub fn grow(&self, known: bool, room: &mut Room, bytes: usize) -> Result<(), RpcError> {
        let blocks = if known || bytes <= SMALL { 0 } else { bytes.div_ceil(BLOCK) };
        let missing = blocks.saturating_sub(room.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            return Ok(());
        }
        let full = || busy("too many large answers without a token at once; try again, or send a token");
        let missing = u32::try_from(missing).map_err(|_| full())?;
        let more = self.answers.clone().try_acquire_many_owned(missing).map_err(|_| full())?;
        match &mut room.0 {
            Some(room) => room.merge(more),
            None => room.0 = Some(more),
        }
        Ok(())
    }
}

fn busy(why: &str) -> RpcError {
    RpcError { code: -32005, message: why.to_string() }
}

/// An answer's text with its room, given out in pieces.
pub struct AnswerBody {
    left: Bytes,
    _room: Room,
}

impl AnswerBody {
    pub fn new(text: String, room: Room) -> AnswerBody {
        AnswerBody { left: text.into(), _room: room }
    }
}

impl MessageBody for AnswerBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.left.len().min(PIECE);
        Poll::Ready(Some(Ok(self.left.split_to(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_call_without_a_token_waits_for_its_turn_and_one_with_a_token_never() {
        let within = Duration::from_millis(300);
        let strangers = Strangers::with(1, ANSWERS, within);
        let ask = "Filecoin.ChainHead";
        let first = strangers.turn(false, ask).await.expect("its turn");
        let at_once = |turn: Option<Result<Turn, RpcError>>| turn.is_some_and(|turn| turn.is_ok());
        assert!(at_once(strangers.turn(false, "Filecoin.StateWaitMsg").now_or_never()), "it waits elsewhere");
        assert!(strangers.turn(true, ask).now_or_never().is_some_and(|turn| turn.is_ok()), "it has a token");
        let began = tokio::time::Instant::now();
        let why = strangers.turn(false, ask).await.err().expect("the first still runs");
        assert!(began.elapsed() >= within && why.code == -32005, "{why:?}");
        let waits = tokio::spawn({
            let strangers = strangers.clone();
            async move { strangers.turn(false, ask).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waits.await.expect("it ends"));
    }

    #[test]
    fn channels_without_a_token_are_few_but_those_of_heads() {
        let strangers = Strangers::new();
        let open = |known: bool, method: &str| strangers.channel(known, method);
        let held: Vec<_> = (0..CHANNELS).map(|_| open(false, "Filecoin.MpoolSub").expect("room")).collect();
        assert!(open(false, "Filecoin.ChainExport").is_err());
        for (known, method) in [(true, "Filecoin.ChainExport"), (false, "Filecoin.ChainNotify")] {
            assert!(open(known, method).is_ok(), "{method}");
        }
        drop(held);
        assert!(open(false, "Filecoin.ChainExport").is_ok());
    }

    #[test]
    fn large_answers_share_their_room_and_small_ones_need_none() {
        let strangers = Strangers::with(CALLS, 4 * BLOCK, TURN_WITHIN);
        let grown = |known: bool, sizes: &[usize]| {
            let mut room = Room::default();
            sizes.iter().try_for_each(|size| strangers.grow(known, &mut room, *size)).map(|()| room)
        };
        let first = grown(false, &[SMALL, 2 * BLOCK, 3 * BLOCK]).expect("room for three");
        assert_eq!(strangers.answers.available_permits(), 1);
        assert!(grown(false, &[SMALL]).expect("small").is_none());
        assert!(grown(true, &[usize::MAX]).expect("a token").is_none());
        assert!(grown(false, &[SMALL + 1]).is_err(), "two blocks");
        drop(first);
        assert!(!grown(false, &[4 * BLOCK]).expect("all of it").is_none());
        assert!(grown(false, &[4 * BLOCK + 1]).is_err());
        assert_eq!(strangers.answers.available_permits(), 4, "all is given back");
    }

    #[tokio::test]
    async fn an_answer_keeps_its_room_until_its_last_piece_is_given_out() {
        let strangers = Strangers::with(CALLS, 4 * BLOCK, TURN_WITHIN);
        let mut room = Room::default();
        strangers.grow(false, &mut room, 2 * PIECE + 1).expect("room");
        let mut body = Box::pin(AnswerBody::new("x".repeat(2 * PIECE + 1), room));
        assert_eq!(body.size(), BodySize::Sized(2 * PIECE as u64 + 1));
        let mut sizes = Vec::new();
        while let Some(Ok(piece)) = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await {
            sizes.push(piece.len());
            assert_eq!(strangers.answers.available_permits(), 1);
        }
        assert_eq!(sizes, [PIECE, PIECE, 1]);
        drop(body);
        assert_eq!(strangers.answers.available_permits(), 4);
    }
}
