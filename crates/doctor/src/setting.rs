//! Value of one setting of a deployment: known, absent, or not resolved ([`SettingValue`]).

/// The value of a setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SettingValue<T> {
    /// The deployment sets this value.
    Known(T),
    /// The deployment does not set it, so AWS uses its default.
    #[default]
    Absent,
    /// The value cannot be determined, for this reason. It is never treated as a good value.
    Unresolved(String),
}

impl<T> SettingValue<T> {
    /// Returns the value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Unresolved(_) => None,
        }
    }

    /// Returns whether the deployment does not set the value.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Returns the value, or `None` if it is absent.
    ///
    /// # Errors
    /// The reason, if the value is not resolved.
    pub fn get(&self) -> Result<Option<&T>, String> {
        match self {
            Self::Known(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Unresolved(reason) => Err(reason.clone()),
        }
    }

    /// Converts a known value, which may turn out not to be usable.
    pub fn and_then<U>(self, convert: impl FnOnce(T) -> SettingValue<U>) -> SettingValue<U> {
        match self {
            Self::Known(value) => convert(value),
            Self::Absent => SettingValue::Absent,
            Self::Unresolved(reason) => SettingValue::Unresolved(reason),
        }
    }

    /// Converts a known value.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> SettingValue<U> {
        self.and_then(|value| SettingValue::Known(convert(value)))
    }
}

impl<T: Copy> SettingValue<T> {
    /// Returns the value, or the default of AWS if it is absent.
    ///
    /// # Errors
    /// The reason, if the value is not resolved.
    pub fn or_default(&self, default: T) -> Result<T, String> {
        Ok(self.get()?.copied().unwrap_or(default))
    }
}
