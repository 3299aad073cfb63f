//! How far this process has seen etcd's history, so that an etcd that was put back to an earlier state is told from one that
//! goes on. Pure.
//!
//! The revision of a linearizable answer is never lower than one that was seen before the question was sent, unless etcd
//! was restored from a backup or built anew. What this process holds hangs on the history that is gone then: others may
//! hold the same under the new one, with lower epochs.

/// A point in etcd's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// etcd's id of the cluster; 0: not known. A restored snapshot has another one.
    pub cluster: u64,
    pub revision: u64,
}

/// The knowledge at the time a question was sent.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    round: u64,
    known: Point,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The known history goes on.
    GoesOn,
    /// etcd was put back: from now on the answer's history counts.
    PutBack { known: u64, found: u64 },
    /// An answer from a history that was found to be gone meanwhile: it says nothing.
    Stale,
}

#[derive(Default)]
pub struct History {
    /// Counts the histories.
    round: u64,
    known: Point,
}

impl History {
    /// Comes before the question is sent.
    pub fn ask(&self) -> Asked {
        Asked { round: self.round, known: self.known }
    }

    pub fn answered(&mut self, asked: Asked, found: Point) -> Answer {
        if asked.round != self.round {
            return Answer::Stale;
        }
        let another = |a: u64, b: u64| a != 0 && b != 0 && a != b;
        if found.revision < asked.known.revision || another(found.cluster, asked.known.cluster) {
            self.round += 1;
            self.known = found;
            return Answer::PutBack { known: asked.known.revision, found: found.revision };
        }
        self.known = Point {
            cluster: if found.cluster == 0 { self.known.cluster } else { found.cluster },
            revision: self.known.revision.max(found.revision),
        };
        Answer::GoesOn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cluster: u64, revision: u64) -> Point {
        Point { cluster, revision }
    }

    #[test]
    fn only_an_answer_from_before_what_was_known_is_of_another_history() {
        // cluster and revision known when it was asked, and of the answer -> what it is
        let back = |known, found| Answer::PutBack { known, found };
        let table = [
            (at(0, 0), at(7, 1), Answer::GoesOn),
            (at(7, 40), at(7, 40), Answer::GoesOn),
            (at(7, 40), at(7, 41), Answer::GoesOn),
            (at(7, 40), at(7, 39), back(40, 39)),
            // A snapshot that was restored, and written to beyond what was known.
            (at(7, 40), at(8, 90), back(40, 90)),
            (at(7, 40), at(0, 41), Answer::GoesOn),
        ];
        for (known, found, expected) in table {
            let mut history = History { round: 0, known };
            let asked = history.ask();
            assert_eq!(history.answered(asked, found), expected, "{known:?} {found:?}");
            let asked = history.ask();
            assert_eq!(history.answered(asked, found), Answer::GoesOn, "it is known now: {found:?}");
        }
    }

    #[test]
    fn answers_that_cross_each_other_are_of_one_history() {
        let mut history = History { round: 0, known: at(7, 40) };
        let (first, second) = (history.ask(), history.ask());
        assert_eq!(history.answered(second, at(7, 45)), Answer::GoesOn);
        assert_eq!(history.answered(first, at(7, 43)), Answer::GoesOn, "it was asked before 45 was seen");
        let asked = history.ask();
        assert_eq!(history.answered(asked, at(7, 44)), Answer::PutBack { known: 45, found: 44 });
    }

    #[test]
    fn what_was_asked_before_etcd_was_put_back_raises_nothing_afterwards() {
        let mut history = History { round: 0, known: at(7, 40) };
        let (early, asked) = (history.ask(), history.ask());
        assert_eq!(history.answered(asked, at(7, 12)), Answer::PutBack { known: 40, found: 12 });
        assert_eq!(history.answered(early, at(7, 41)), Answer::Stale);
        let next = history.ask();
        assert_eq!(history.answered(next, at(7, 13)), Answer::GoesOn);
    }
}
