//! Operators on two values: fanli's own types here, everything else by minijinja.

use super::EvalError;
use super::bridge::outward;
use super::eval::jinja;
use crate::source::Span;
use crate::syntax::ast::BinaryOp;
use crate::value::Value;

/// The longest text or list that `*` may make, in bytes or items: a bomb otherwise.
const MOST_REPEATED: usize = 64 * 1024;

/// The value of `left op right`. `and` and `or` do not come here: they look at their right side only when needed.
pub(super) fn apply(op: BinaryOp, left: &Value, right: &Value, span: Span) -> Result<Value, EvalError> {
    match op {
        BinaryOp::Equal => return Ok(Value::Bool(equal(left, right))),
        BinaryOp::NotEqual => return Ok(Value::Bool(!equal(left, right))),
        BinaryOp::In | BinaryOp::NotIn => {
            if let Value::List(items) = right {
                let found = items.iter().any(|item| equal(left, item));
                return Ok(Value::Bool(found == (op == BinaryOp::In)));
            }
            if let (Value::Ip(address), Value::Net(net)) = (left, right) {
                return Ok(Value::Bool(net.contains(address) == (op == BinaryOp::In)));
            }
        }
        BinaryOp::Multiply => refuse_bomb(left, right, span)?,
        BinaryOp::Add => {
            if let (Value::List(first), Value::List(second)) = (left, right) {
                return Ok(Value::List(first.iter().chain(second).cloned().collect()));
            }
        }
        _ => {}
    }
    if let Some(value) = measured(op, left, right, span)? {
        return Ok(value);
    }
    let context = [("a", outward(left)), ("b", outward(right))];
    jinja(&format!("a {} b", op.symbol()), &context, span)
}

/// Equal by value; an address equals the text that writes it, as hosts report addresses as text.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Str(text), typed @ (Value::Ip(_) | Value::Net(_)))
        | (typed @ (Value::Ip(_) | Value::Net(_)), Value::Str(text)) => typed.to_string() == *text,
        (Value::Int(whole), Value::Float(number)) | (Value::Float(number), Value::Int(whole)) => {
            // Exact for every number that a playbook can hold as a fraction.
            #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "compared as minijinja compares")]
            let same = *whole as f64 == *number;
            same
        }
        _ => left == right,
    }
}

/// Makes the measured value again from its number.
type Rebuild = fn(u64) -> Value;

/// Sizes and durations: compared, added, subtracted, multiplied by whole numbers; overflow is an error.
fn measured(op: BinaryOp, left: &Value, right: &Value, span: Span) -> Result<Option<Value>, EvalError> {
    let overflow = || EvalError::new(span, "the result is too large or below zero");
    let nanos = |time: &std::time::Duration| u64::try_from(time.as_nanos()).map_err(|_| overflow());
    let size: Rebuild = Value::Size;
    let duration: Rebuild = |nanos| Value::Duration(std::time::Duration::from_nanos(nanos));
    let (first, second, rebuild) = match (left, right) {
        (Value::Size(first), Value::Size(second)) => (*first, Ok(*second), size),
        (Value::Duration(first), Value::Duration(second)) => (nanos(first)?, Ok(nanos(second)?), duration),
        (Value::Size(first), Value::Int(times)) => (*first, Err(*times), size),
        (Value::Duration(first), Value::Int(times)) => (nanos(first)?, Err(*times), duration),
        _ => return Ok(None),
    };
    let value = match (op, second) {
        (BinaryOp::Less, Ok(second)) => Value::Bool(first < second),
        (BinaryOp::LessEqual, Ok(second)) => Value::Bool(first <= second),
        (BinaryOp::Greater, Ok(second)) => Value::Bool(first > second),
        (BinaryOp::GreaterEqual, Ok(second)) => Value::Bool(first >= second),
        (BinaryOp::Add, Ok(second)) => rebuild(first.checked_add(second).ok_or_else(overflow)?),
        (BinaryOp::Subtract, Ok(second)) => rebuild(first.checked_sub(second).ok_or_else(overflow)?),
        (BinaryOp::Multiply, Err(times)) => {
            let times = u64::try_from(times).map_err(|_| overflow())?;
            rebuild(first.checked_mul(times).ok_or_else(overflow)?)
        }
        (BinaryOp::Divide | BinaryOp::FloorDivide, Err(times)) => {
            let times = u64::try_from(times).map_err(|_| overflow())?;
            rebuild(first.checked_div(times).ok_or_else(|| EvalError::new(span, "division by zero"))?)
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn refuse_bomb(left: &Value, right: &Value, span: Span) -> Result<(), EvalError> {
    let (length, times) = match (left, right) {
        (Value::Str(text), Value::Int(times)) | (Value::Int(times), Value::Str(text)) => (text.len(), *times),
        (Value::List(items), Value::Int(times)) | (Value::Int(times), Value::List(items)) => (items.len(), *times),
        _ => return Ok(()),
    };
    let product = usize::try_from(times).unwrap_or(0).saturating_mul(length.max(1));
    if product > MOST_REPEATED {
        return Err(EvalError::new(span, "`*` would make more than 64 KiB"));
    }
    Ok(())
}
