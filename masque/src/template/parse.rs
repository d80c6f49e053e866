//! From text to a [`Template`].

use super::{MAX_VARIABLES, Pair, Piece, Template, TemplateError};

/// One expression or stretch of literal text, still without structure.
enum Token<'a> {
    Text(&'a str),
    Expression { operator: Option<char>, names: Vec<&'a str> },
}

/// Reads path and query.
pub(super) fn body(origin: &str, text: &str) -> Result<Template, TemplateError> {
    let mut segments: Vec<Vec<Piece>> = vec![Vec::new()];
    let mut query: Option<Vec<Pair>> = None;
    // The query pair being read: its pieces up to the next `&`.
    let mut pair: Vec<Piece> = Vec::new();
    for token in tokens(text)? {
        match (token, &mut query) {
            (Token::Text(text), None) => {
                let (path, rest) = match text.split_once('?') {
                    Some((path, rest)) => (path, Some(rest)),
                    None => (text, None),
                };
                for (i, part) in path.split('/').enumerate() {
                    if i > 0 {
                        segments.push(Vec::new());
                    }
                    literal(segments.last_mut(), part);
                }
                if let Some(rest) = rest {
                    query_text(rest, &mut pair, query.insert(Vec::new()))?;
                }
            }
            (Token::Text(text), Some(query)) => query_text(text, &mut pair, query)?,
            (Token::Expression { operator: None, names }, None) => {
                for (i, name) in names.into_iter().enumerate() {
                    if i > 0 {
                        literal(segments.last_mut(), ",");
                    }
                    if let Some(segment) = segments.last_mut() {
                        segment.push(Piece::Variable(name.to_owned()));
                    }
                }
            }
            (Token::Expression { operator: None, names }, Some(_)) => match names[..] {
                [name] => pair.push(Piece::Variable(name.to_owned())),
                _ => return Err(TemplateError::Expression(names.join(","))),
            },
            (Token::Expression { operator: Some(operator), names }, current) => {
                if (operator == '?') == current.is_some() {
                    return Err(TemplateError::Operator(operator));
                }
                let query = current.get_or_insert_with(Vec::new);
                end_pair(&mut pair, query)?;
                query.extend(names.into_iter().map(|name| Pair {
                    key: name.to_owned(),
                    value: Some(Piece::Variable(name.to_owned())),
                    optional: true,
                }));
            }
        }
    }
    if let Some(query) = &mut query {
        end_pair(&mut pair, query)?;
    }
    let template = Template { origin: origin.to_owned(), segments, query };
    check(&template)?;
    Ok(template)
}

fn literal(segment: Option<&mut Vec<Piece>>, text: &str) {
    let Some(segment) = segment else { return };
    match segment.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Literal(before)) => before.push_str(text),
        _ => segment.push(Piece::Literal(text.to_owned())),
    }
}

fn query_text(
    text: &str,
    pair: &mut Vec<Piece>,
    query: &mut Vec<Pair>,
) -> Result<(), TemplateError> {
    for (i, part) in text.split('&').enumerate() {
        if i > 0 {
            end_pair(pair, query)?;
        }
        literal(Some(pair), part);
    }
    Ok(())
}

fn end_pair(pair: &mut Vec<Piece>, query: &mut Vec<Pair>) -> Result<(), TemplateError> {
    let (key, value) = match &pair[..] {
        [] => return Ok(()),
        [Piece::Literal(text)] => match text.split_once('=') {
            Some((key, value)) => (key, Some(Piece::Literal(value.to_owned()))),
            None => (text.as_str(), None),
        },
        [Piece::Literal(text), Piece::Variable(name)] => match text.strip_suffix('=') {
            Some(key) => (key, Some(Piece::Variable(name.clone()))),
            None => return Err(TemplateError::Expression(format!("{text}{{{name}}}"))),
        },
        _ => return Err(TemplateError::Expression("a query value of several parts".to_owned())),
    };
    query.push(Pair { key: key.to_owned(), value, optional: false });
    pair.clear();
    Ok(())
}

fn check(template: &Template) -> Result<(), TemplateError> {
    let names: Vec<&str> = template.variables().collect();
    for (i, name) in names.iter().enumerate() {
        if i >= MAX_VARIABLES || names[..i].contains(name) {
            return Err(TemplateError::Variable((*name).to_owned()));
        }
    }
    for segment in &template.segments {
        let variable = |p: &&Piece| matches!(p, Piece::Variable(_));
        if segment.windows(2).any(|w| w.iter().all(|p| variable(&p))) {
            return Err(TemplateError::Ambiguous);
        }
        let separators = segment.windows(3).filter(|w| variable(&&w[0]) && variable(&&w[2]));
        for window in separators {
            let Piece::Literal(text) = &window[1] else { continue };
            if !text.contains(|c: char| "!$&'()*+,;=:@".contains(c)) {
                return Err(TemplateError::Ambiguous);
            }
        }
    }
    Ok(())
}

fn tokens(mut text: &str) -> Result<Vec<Token<'_>>, TemplateError> {
    let mut out = Vec::new();
    while !text.is_empty() {
        let bad = || TemplateError::Expression(text.to_owned());
        match text.find(['{', '}']) {
            None => {
                out.push(Token::Text(plain(text)?));
                text = "";
            }
            Some(0) if text.starts_with('{') => {
                let end = text.find('}').ok_or_else(bad)?;
                out.push(expression(&text[1..end])?);
                text = &text[end + 1..];
            }
            Some(0) => return Err(bad()),
            Some(at) => {
                out.push(Token::Text(plain(&text[..at])?));
                text = &text[at..];
            }
        }
    }
    Ok(out)
}

/// Literal text; a fragment is no part of a request.
fn plain(text: &str) -> Result<&str, TemplateError> {
    if text.contains('#') { Err(TemplateError::Form) } else { Ok(text) }
}

fn expression(text: &str) -> Result<Token<'_>, TemplateError> {
    let (operator, names) = match text.chars().next() {
        Some(c @ ('?' | '&')) => (Some(c), &text[1..]),
        Some(c @ ('+' | '#' | '.' | '/' | ';' | '=' | ',' | '!' | '@' | '|')) => {
            return Err(TemplateError::Operator(c));
        }
        _ => (None, text),
    };
    let names: Vec<&str> = names.split(',').collect();
    let good = |n: &str| {
        !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
    };
    if names.iter().all(|n| good(n)) {
        Ok(Token::Expression { operator, names })
    } else {
        Err(TemplateError::Expression(text.to_owned()))
    }
}
