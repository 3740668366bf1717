//! A form on the screen: fields that are typed into or chosen from, buttons, and one line that has the focus.

use crate::keys::Key;
use crate::screen::Line;

/// Longest text of a field.
const TEXT_MAX: usize = 200;
/// Width of the labels.
const LABEL_WIDTH: usize = 18;

/// One line of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<Name> {
    /// Which field it is.
    pub name: Name,
    /// What stands before it.
    pub label: String,
    /// What is in it.
    pub content: Content,
}

/// What a line of a form holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text that is typed, with what is to be typed as an example.
    Text {
        /// As it is.
        text: String,
        /// Shown behind an empty field.
        example: &'static str,
    },
    /// One of several, changed with the arrows to the left and right.
    Choice {
        /// What can be chosen.
        options: Vec<String>,
        /// The chosen one's position.
        chosen: usize,
    },
    /// Something that is done with Enter.
    Button,
}

/// What a key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction<Name> {
    /// Nothing that anyone else needs to know.
    Nothing,
    /// The button was pressed.
    Pressed(Name),
    /// Enter was pressed in a field, and the next one has the focus.
    Entered(Name),
    /// The form is to be left.
    Left,
}

/// A form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form<Name> {
    /// Its lines.
    pub fields: Vec<Field<Name>>,
    /// The line that has the focus.
    pub focus: usize,
}

impl<Name: Copy + PartialEq> Form<Name> {
    /// A form that begins with its first line.
    pub fn new(fields: Vec<Field<Name>>) -> Self {
        Self { fields, focus: 0 }
    }

    /// Takes a key.
    pub fn take(&mut self, key: Key) -> Reaction<Name> {
        let last = self.fields.len().saturating_sub(1);
        let Some(field) = self.fields.get_mut(self.focus) else { return Reaction::Left };
        match (key, &mut field.content) {
            (Key::Escape, _) => return Reaction::Left,
            (Key::Up, _) => self.focus = if self.focus == 0 { last } else { self.focus - 1 },
            (Key::Down | Key::Tab, _) => self.focus = if self.focus == last { 0 } else { self.focus + 1 },
            (Key::Enter, Content::Button) => return Reaction::Pressed(field.name),
            (Key::Enter, _) => {
                let name = field.name;
                self.focus = (self.focus + 1).min(last);
                return Reaction::Entered(name);
            }
            (Key::Right | Key::Character(' '), Content::Choice { options, chosen }) => {
                *chosen = (*chosen + 1) % options.len().max(1);
            }
            (Key::Left, Content::Choice { options, chosen }) => {
                *chosen = (*chosen + options.len().max(1) - 1) % options.len().max(1);
            }
            (Key::Backspace, Content::Text { text, .. }) => drop(text.pop()),
            (Key::Clear, Content::Text { text, .. }) => text.clear(),
            (Key::Character(typed), Content::Text { text, .. }) if text.len() < TEXT_MAX => text.push(typed),
            _ => {}
        }
        Reaction::Nothing
    }

    /// The text of a field, without blanks around it; `None` where it is empty.
    pub fn text(&self, name: Name) -> Option<&str> {
        self.fields.iter().find(|field| field.name == name).and_then(|field| match &field.content {
            Content::Text { text, .. } => Some(text.trim()).filter(|text| !text.is_empty()),
            _ => None,
        })
    }

    /// The position of what is chosen in a field.
    pub fn chosen(&self, name: Name) -> usize {
        let field = self.fields.iter().find(|field| field.name == name);
        field.map_or(0, |field| if let Content::Choice { chosen, .. } = field.content { chosen } else { 0 })
    }

    /// Moves the focus to a field.
    pub fn focus_on(&mut self, name: Name) {
        self.focus = self.fields.iter().position(|field| field.name == name).unwrap_or(self.focus);
    }
}

impl<Name> Field<Name> {
    /// A field for text.
    pub fn text(name: Name, label: &str, text: impl Into<String>, example: &'static str) -> Self {
        Self { name, label: label.into(), content: Content::Text { text: text.into(), example } }
    }

    /// A field with a choice.
    pub fn choice(name: Name, label: &str, options: Vec<String>, chosen: usize) -> Self {
        Self { name, label: label.into(), content: Content::Choice { options, chosen } }
    }

    /// A button.
    pub fn button(name: Name, label: impl Into<String>) -> Self {
        Self { name, label: label.into(), content: Content::Button }
    }
}

/// A line for each field; the one with the focus is marked without colour too.
pub fn draw<Name>(form: &Form<Name>) -> Vec<Line> {
    let draw = |(n, field): (usize, &Field<Name>)| {
        let focused = n == form.focus;
        let mark = if focused { '>' } else { ' ' };
        let text = match &field.content {
            Content::Text { text, example } if text.is_empty() && !focused => {
                format!("{mark} {:<LABEL_WIDTH$}({example})", field.label)
            }
            Content::Text { text, .. } => {
                let cursor = if focused { "_" } else { "" };
                format!("{mark} {:<LABEL_WIDTH$}{text}{cursor}", field.label)
            }
            Content::Choice { options, chosen } => {
                let option = options.get(*chosen).map(String::as_str).unwrap_or_default();
                format!("{mark} {:<LABEL_WIDTH$}< {option} >", field.label)
            }
            Content::Button => format!("{mark} {}", field.label),
        };
        if focused { Line::Bar(text) } else { Line::Plain(text) }
    };
    form.fields.iter().enumerate().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_filled_with_arrows_and_letters() {
        let mut form = Form::new(vec![
            Field::choice('m', "Mode", vec!["DHCP".into(), "static".into()], 0),
            Field::text('a', "Address", "", "192.0.2.7/24"),
            Field::button('s', "Save"),
        ]);
        let mut press = |keys: &[Key]| keys.iter().map(|&key| form.take(key)).last();
        assert_eq!(
            press(&[Key::Right, Key::Enter, Key::Character('1'), Key::Character('x'), Key::Backspace]),
            Some(Reaction::Nothing)
        );
        assert_eq!(press(&[Key::Down, Key::Enter]), Some(Reaction::Pressed('s')));
        assert_eq!(press(&[Key::Down, Key::Up, Key::Escape]), Some(Reaction::Left));
        assert_eq!((form.chosen('m'), form.text('a'), form.text('s')), (1, Some("1"), None));
    }

    #[test]
    fn a_choice_goes_round_and_a_text_has_an_end() {
        let mut form = Form::new(vec![Field::choice('m', "Mode", vec!["a".into(), "b".into()], 0)]);
        form.take(Key::Left);
        assert_eq!(form.chosen('m'), 1);
        form.take(Key::Right);
        assert_eq!(form.chosen('m'), 0);
        let mut form = Form::new(vec![Field::text('t', "Text", "", "")]);
        (0..1000).for_each(|_| assert_eq!(form.take(Key::Character('x')), Reaction::Nothing));
        assert_eq!(form.text('t').unwrap().len(), TEXT_MAX);
    }
}
