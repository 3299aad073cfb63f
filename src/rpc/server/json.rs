//! Parameters and results of a call as JSON.

use super::bounds::{self, Bounds};
use super::envelope::RpcError;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub fn to_json(value: &impl serde::Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(value).map_err(|e| RpcError::no_json(&e))
}

/// The parameters of one call, taken in order.
pub struct Params {
    method: String,
    rest: std::vec::IntoIter<Value>,
    index: usize,
}

impl Params {
    pub fn new(method: &str, list: Vec<Value>) -> Params {
        Params { method: method.into(), rest: list.into_iter(), index: 0 }
    }

    pub fn expect(&self, arity: usize) -> Result<(), RpcError> {
        let given = self.rest.len();
        if given == arity {
            return Ok(());
        }
        Err(RpcError::invalid_params(format!("wrong param count (method '{}'): {given} != {arity}", self.method)))
    }

    pub fn take<T: DeserializeOwned>(&mut self) -> Result<T, RpcError> {
        let index = self.index;
        self.index += 1;
        serde_json::from_value(self.rest.next().unwrap_or_default()).map_err(|e| {
            RpcError::invalid_params(format!("unmarshaling params for '{}' (param: {index}): {e}", self.method))
        })
    }
}

/// Parses what a caller sent, once, and only what its bounds allow.
pub fn read_json(bytes: &[u8], bounds: &Bounds) -> Result<Value, RpcError> {
    if bounds::has_more_marks(bytes, bounds.marks) {
        return Err(RpcError::invalid_request(format!("the request has more than {} JSON values", bounds.marks)));
    }
    serde_json::from_slice(bytes).map_err(|_| RpcError::parse("Parse error"))
}
