//! Enums of named states whose numbers in stored and sent bytes are written down, not taken from their order in the source.
//!
//! Binary forms (the store, the bridge) carry the number as serde's variant index, so bytes that a derived enum wrote are
//! read as before; JSON carries the name.

use serde::de::{self, Deserializer, EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// An enum without fields whose variants have numbers that never change.
pub trait Numbered: Copy + 'static {
    /// Name of the type, for errors.
    const TYPE: &'static str;
    const ALL: &'static [Self];
    /// Names of [`Numbered::ALL`], in that order.
    const NAMES: &'static [&'static str];

    /// Stored and sent. A number is never given to another variant, also when its own is gone.
    fn number(self) -> u32;
    fn name(self) -> &'static str;
}

pub fn serialize<T: Numbered, S: Serializer>(it: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_unit_variant(T::TYPE, it.number(), it.name())
}

pub fn deserialize<'de, T: Numbered, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_enum(T::TYPE, T::NAMES, VariantVisitor(PhantomData))
}

struct VariantVisitor<T>(PhantomData<T>);

impl<'de, T: Numbered> Visitor<'de> for VariantVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a {}", T::TYPE)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<T, A::Error> {
        let (Tag(variant), content) = data.variant::<Tag<T>>()?;
        content.unit_variant()?;
        Ok(variant)
    }
}

/// The number or the name in front of a variant.
struct Tag<T>(T);

impl<'de, T: Numbered> Deserialize<'de> for Tag<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Tag<T>, D::Error> {
        from.deserialize_identifier(TagVisitor(PhantomData))
    }
}

struct TagVisitor<T>(PhantomData<T>);

impl<T: Numbered> Visitor<'_> for TagVisitor<T> {
    type Value = Tag<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "the number or name of a {}", T::TYPE)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Tag<T>, E> {
        let found = T::ALL.iter().find(|it| u64::from(it.number()) == number);
        found.map(|it| Tag(*it)).ok_or_else(|| {
            E::custom(format_args!("{} {number} is not known to this version; a later one wrote it", T::TYPE))
        })
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Tag<T>, E> {
        let found = T::ALL.iter().find(|it| it.name() == name);
        found.map(|it| Tag(*it)).ok_or_else(|| E::unknown_variant(name, T::NAMES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    /// Out of order, with a hole.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Sail {
        Main,
        Fore,
        Top,
    }

    impl Numbered for Sail {
        const TYPE: &'static str = "Sail";
        const ALL: &'static [Sail] = &[Sail::Main, Sail::Fore, Sail::Top];
        const NAMES: &'static [&'static str] = &["Main", "Fore", "Top"];
        fn number(self) -> u32 {
            match self {
                Sail::Main => 7,
                Sail::Fore => 0,
                Sail::Top => 300,
            }
        }
        fn name(self) -> &'static str {
            match self {
                Sail::Main => "Main",
                Sail::Fore => "Fore",
                Sail::Top => "Top",
            }
        }
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Set(#[serde(with = "super")] Sail, u8);

    #[test]
    fn bytes_carry_the_number_and_json_the_name() {
        let config = bincode::config::standard();
        for (sail, bytes) in [(Sail::Main, "0709"), (Sail::Fore, "0009"), (Sail::Top, "fb2c0109")] {
            let set = Set(sail, 9);
            let encoded = bincode::serde::encode_to_vec(&set, config).unwrap();
            assert_eq!(hex::encode(&encoded), bytes);
            assert_eq!(bincode::serde::decode_from_slice(&encoded, config).unwrap(), (set, encoded.len()));
            let json = format!("[\"{}\",9]", sail.name());
            assert_eq!(serde_json::to_string(&Set(sail, 9)).unwrap(), json);
            assert_eq!(serde_json::from_str::<Set>(&json).unwrap(), Set(sail, 9));
        }
    }

    #[test]
    fn an_unknown_number_or_name_is_refused() {
        let config = bincode::config::standard();
        let refused = bincode::serde::decode_from_slice::<Set, _>(&[1, 9], config).unwrap_err().to_string();
        assert!(refused.contains("Sail 1 is not known to this version; a later one wrote it"), "{refused}");
        let refused = serde_json::from_str::<Set>("[\"Mizzen\",9]").unwrap_err().to_string();
        assert!(refused.contains("Mizzen"), "{refused}");
    }
}
