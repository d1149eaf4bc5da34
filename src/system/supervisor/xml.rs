//! XML-RPC as supervisor speaks it: a call to write, an answer to read.
//!
//! The answer comes from a container, whose root may be anybody: it is bounded, and nothing in it is trusted to be there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use roxmltree::{Document, Node, ParsingOptions};

use crate::failure::{Context, Failure};

/// The most nodes of an answer that is read.
const MOST_NODES: u32 = 200_000;
/// How deep values may lie in each other.
const DEEPEST: u32 = 16;

/// What is passed to a method.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    Text(&'a str),
    Flag(bool),
}

/// What a method gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Text(String),
    Int(i64),
    Flag(bool),
    List(Vec<Item>),
    Struct(BTreeMap<String, Item>),
}

/// What comes back: a value, or a fault with its code and text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Value(Item),
    Fault(i64, String),
}

impl Item {
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    pub(super) fn list(&self) -> Option<&[Item]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    pub(super) fn field(&self, name: &str) -> Option<&Item> {
        if let Self::Struct(fields) = self { fields.get(name) } else { None }
    }
}

/// The body of a call.
pub(super) fn call(method: &str, args: &[Arg]) -> String {
    let mut text = format!("<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>");
    for arg in args {
        let value = match arg {
            Arg::Text(text) => format!("<string>{}</string>", escaped(text)),
            Arg::Flag(flag) => format!("<boolean>{}</boolean>", u8::from(*flag)),
        };
        let _ = write!(text, "<param><value>{value}</value></param>");
    }
    text.push_str("</params></methodCall>");
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Reads an answer.
pub(super) fn reply(text: &str) -> Result<Reply, Failure> {
    let odd = || Failure::new("the answer is not XML-RPC");
    let options = ParsingOptions { nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).context("the answer is not XML-RPC")?;
    let root = document.root_element();
    if let Some(fault) = child(root, "fault").and_then(|fault| child(fault, "value")) {
        let fault = item(fault, 0).ok_or_else(odd)?;
        let (code, text) = (fault.field("faultCode").and_then(Item::int), fault.field("faultString"));
        let text = text.and_then(Item::text).unwrap_or_default().to_owned();
        return Ok(Reply::Fault(code.unwrap_or(0), text));
    }
    let value = child(root, "params").and_then(|params| child(params, "param")).and_then(|one| child(one, "value"));
    value.and_then(|value| item(value, 0)).map(Reply::Value).ok_or_else(odd)
}

fn child<'a, 'i>(of: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    of.children().find(|node| node.has_tag_name(name))
}

/// The value inside `<value>`; without a type it is text.
fn item(value: Node, depth: u32) -> Option<Item> {
    if depth > DEEPEST {
        return None;
    }
    let Some(typed) = value.children().find(Node::is_element) else {
        return Some(Item::Text(content(value)));
    };
    Some(match typed.tag_name().name() {
        "int" | "i4" | "i8" => Item::Int(content(typed).trim().parse().ok()?),
        "boolean" => Item::Flag(content(typed).trim() == "1"),
        "array" => {
            let data = child(typed, "data")?;
            let values = data.children().filter(|node| node.has_tag_name("value"));
            Item::List(values.map(|value| item(value, depth + 1)).collect::<Option<_>>()?)
        }
        "struct" => {
            let members = typed.children().filter(|node| node.has_tag_name("member"));
            let member = |node: Node| Some((content(child(node, "name")?), item(child(node, "value")?, depth + 1)?));
            Item::Struct(members.map(member).collect::<Option<_>>()?)
        }
        // `string`; and `double`, `dateTime`, `base64`, `nil`, which nothing that is asked for here has.
        _ => Item::Text(content(typed)),
    })
}

fn content(node: Node) -> String {
    node.children().filter_map(|part| part.text()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_written() {
        let text = call("supervisor.startProcess", &[Arg::Text("a<b>&c"), Arg::Flag(false)]);
        assert_eq!(
            text,
            "<?xml version=\"1.0\"?><methodCall><methodName>supervisor.startProcess</methodName><params>\
             <param><value><string>a&lt;b&gt;&amp;c</string></value></param>\
             <param><value><boolean>0</boolean></value></param></params></methodCall>"
        );
        assert!(Document::parse(&text).is_ok());
    }

    #[test]
    fn answers_are_read() {
        let text = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\n<value><struct>\n\
                    <member>\n<name>name</name>\n<value><string>a &amp; b</string></value>\n</member>\n<member>\n<name>pid</name>\n\
                    <value><int>-7</int></value>\n</member>\n<member><name>up</name><value><boolean>1</boolean></value></member>\n\
                    <member><name>plain</name><value>text</value></member>\n</struct></value>\n<value><array><data>\n</data></array>\
                    </value></data></array></value>\n</param>\n</params>\n</methodResponse>\n";
        let Reply::Value(item) = reply(text).unwrap() else { panic!() };
        let items = item.list().unwrap();
        assert_eq!(items[0].field("name").unwrap().text(), Some("a & b"));
        assert_eq!(items[0].field("pid").unwrap().int(), Some(-7));
        assert_eq!(items[0].field("up"), Some(&Item::Flag(true)));
        assert_eq!(items[0].field("plain").unwrap().text(), Some("text"));
        assert_eq!(items[1], Item::List(vec![]));
        let fault = "<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>10</int></value></member>\
                     <member><name>faultString</name><value><string>BAD_NAME: x</string></value></member></struct></value></fault>\
                     </methodResponse>";
        assert_eq!(reply(fault).unwrap(), Reply::Fault(10, "BAD_NAME: x".to_owned()));
    }

    #[test]
    fn what_a_hostile_container_answers_is_refused() {
        let deep = format!(
            "<methodResponse><params><param>{}{}</param></params></methodResponse>",
            "<value><array><data>".repeat(5_000),
            "</data></array></value>".repeat(5_000)
        );
        let laughs = "<!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><methodResponse>&b;</methodResponse>";
        for text in ["", "no", "<a/>", "<methodResponse/>", &deep, laughs] {
            assert!(reply(text).is_err(), "{}", text.get(..text.len().min(40)).unwrap_or_default());
        }
    }
}
