"""Pure decisions: functions of what is known, without any input or output."""
