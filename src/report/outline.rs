//! Formats any JSON value as an outline of names and texts.
//!
//! The page shows the model card and the provenance in this way, so their content may grow without
//! changes here.
//!
//! Long lists and deep nesting are shortened and marked: the files contain everything.

use super::format::number;
use serde::Serialize;
use serde_json::{Map, Value};

const MAX_ITEMS: usize = 40;
const MAX_DEPTH: usize = 6;

/// A name with a text, or with further nodes below it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Node {
    pub name: String,
    pub text: String,
    pub below: Vec<Node>,
}

/// Returns the members of an object (or list) as nodes; none for `null`.
pub(super) fn outline(value: &Value) -> Vec<Node> {
    match value {
        Value::Null => Vec::new(),
        Value::Object(_) | Value::Array(_) => members(value, 0),
        scalar => vec![Node { text: text_of(scalar), ..Node::default() }],
    }
}

fn node(name: &str, value: &Value, depth: usize) -> Node {
    let name = name.replace('_', " ");
    match value {
        flat if is_flat(flat) => Node { name, text: text_of(flat), ..Node::default() },
        Value::Object(map) if depth > 0 && map.values().all(is_flat) => {
            Node { name, text: on_one_line(map), ..Node::default() }
        }
        Value::Object(_) | Value::Array(_) if depth < MAX_DEPTH => {
            Node { name, below: members(value, depth + 1), ..Node::default() }
        }
        other => Node { name, text: text_of(other), ..Node::default() },
    }
}

fn members(value: &Value, depth: usize) -> Vec<Node> {
    let all: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(name, v)| (name.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (title(i, v), v)).collect(),
        _ => Vec::new(),
    };
    let mut nodes: Vec<Node> =
        all.iter().take(MAX_ITEMS).map(|(name, v)| node(name, v, depth)).collect();
    if all.len() > MAX_ITEMS {
        let text = format!("and {} more", all.len() - MAX_ITEMS);
        nodes.push(Node { name: "…".to_owned(), text, ..Node::default() });
    }
    nodes
}

/// Returns the title of a list item: its name if it has one, otherwise its number.
fn title(index: usize, item: &Value) -> String {
    let own = item.get("name").and_then(Value::as_str);
    own.map_or_else(|| (index + 1).to_string(), str::to_owned)
}

/// Returns whether a value is a scalar or a list of scalars.
fn is_flat(value: &Value) -> bool {
    let is_scalar = |v: &Value| !v.is_object() && !v.is_array();
    is_scalar(value) || value.as_array().is_some_and(|items| items.iter().all(is_scalar))
}

/// Formats a small object on one line, such as "unit deg · scale 0.3" for a feature; its name is
/// printed before.
fn on_one_line(map: &Map<String, Value>) -> String {
    let shown = map.iter().filter(|(name, value)| *name != "name" && **value != "");
    let parts: Vec<String> = shown
        .take(MAX_ITEMS)
        .map(|(name, value)| format!("{} {}", name.replace('_', " "), text_of(value)))
        .collect();
    parts.join(" · ")
}

fn joined(items: &[Value]) -> String {
    let mut text: Vec<String> = items.iter().take(MAX_ITEMS).map(text_of).collect();
    if items.len() > MAX_ITEMS {
        text.push(format!("… ({} values)", items.len()));
    }
    if text.is_empty() { "none".to_owned() } else { text.join(", ") }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => n.as_f64().map_or_else(String::new, trimmed),
        Value::Number(n) => n.to_string().replace('-', "−"),
        Value::Array(items) if is_flat(value) => joined(items),
        Value::Array(_) | Value::Object(_) => "…".to_owned(),
    }
}

/// Formats a number with six digits, without trailing zeros.
fn trimmed(value: f64) -> String {
    let text = number(value, 6);
    if text.contains('.') && !text.contains('e') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_nest_and_scalar_lists_are_one_line() {
        let nodes =
            outline(&json!({"hidden": [512], "features": [{"name": "size", "unit": "p.e."}]}));
        assert_eq!(nodes.len(), 2);
        let hidden = nodes.iter().find(|n| n.name == "hidden").unwrap();
        assert_eq!(hidden.text, "512");
        let features = nodes.iter().find(|n| n.name == "features").unwrap();
        assert_eq!((&*features.below[0].name, &*features.below[0].text), ("size", "unit p.e."));
        assert!(outline(&Value::Null).is_empty());
    }

    #[test]
    fn long_lists_and_deep_nests_are_shortened() {
        let long = outline(&json!({"values": (0..100).collect::<Vec<u32>>()}));
        assert!(long[0].text.ends_with("39, … (100 values)"), "{}", long[0].text);
        let mut deep = json!(1);
        for _ in 0..50 {
            deep = json!({ "x": deep });
        }
        assert!(format!("{:?}", outline(&deep)).contains('…'));
    }
}
