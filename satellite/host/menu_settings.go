package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"verdecmd/settings"
)

// settings lists what a satellite reads, and changes one of them at a time.
func (m *menu) settings(ctx context.Context) error {
	table := satelliteTable()
	for {
		f, err := m.file()
		if err != nil {
			return err
		}
		m.say("\n  Settings in %s\n", m.path)
		for i, s := range table {
			value, source := inFile(f, s)
			m.say("  %2d  %-32s %-30s %s", i+1, s.Name, value, source)
		}
		if _, err := settings.Load(m.path); err != nil {
			m.say("\nNo program starts with this file: %v", err)
		}
		m.say("")
		text, err := m.ask(ctx, "Number or name of the setting to change (Enter: back)", "")
		if err != nil || text == "" || strings.EqualFold(text, "b") {
			return err
		}
		s, err := pick(table, text)
		if err == nil {
			err = m.change(ctx, s)
		}
		if errors.Is(err, errNoAnswer) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			m.say("\n%s.", strings.TrimSuffix(sentence(err), "."))
		}
	}
}

// change asks for a new value of one setting until it is right or given up.
func (m *menu) change(ctx context.Context, s settings.Setting) error {
	m.say("\n  %s\n  %s\n  It is %s; by default %s. A change counts when the satellite is restarted.", s.Name, s.Text, s.Wants(), dash(s.Default))
	for {
		value, err := m.ask(ctx, "New value (Enter: leave it, -: the default)", "")
		if err != nil || value == "" {
			return err
		}
		if value == "-" {
			err = settings.Edit(m.path, func(f *settings.File) error { _, err := f.Unset(s.Name); return err })
		} else if err = s.CheckValue(value); err != nil {
			m.say("%s.", sentence(err))
			continue
		} else {
			err = settings.Edit(m.path, func(f *settings.File) error { return f.Set(s.Name, value) })
		}
		if err == nil {
			m.say("Written.")
		}
		return err
	}
}

// file is the settings file as it is now; where there is none, an empty one.
func (m *menu) file() (*settings.File, error) {
	b, err := os.ReadFile(m.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return settings.ParseFile(m.path, b)
}

// satelliteTable is what a satellite reads.
func satelliteTable() (out settings.Table) {
	for _, s := range settings.Global() {
		if s.Scope&settings.Satellite != 0 {
			out = append(out, s)
		}
	}
	return out
}

// pick finds a setting by its number in the list, its name or the end of that.
func pick(table settings.Table, text string) (settings.Setting, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= len(table) {
		return table[n-1], nil
	}
	name := strings.ToUpper(text)
	if s, ok := table.Find(name); ok {
		return s, nil
	}
	if near := table.Nearest(name); len(near) == 1 {
		s, _ := table.Find(near[0])
		return s, nil
	}
	return settings.Setting{}, fmt.Errorf("there is no setting %.40q in the list", text)
}

// inFile is the value of a setting and where it comes from.
func inFile(f *settings.File, s settings.Setting) (value, source string) {
	a, ok := f.Get(s.Name)
	switch {
	case !ok:
		return dash(s.Default), "default"
	case s.CheckValue(a.Value) != nil:
		return dash(a.Value), fmt.Sprintf("line %d, wrong", a.Line)
	}
	return dash(a.Value), fmt.Sprintf("line %d", a.Line)
}

// dash stands for an empty value.
func dash(value string) string {
	if value == "" {
		return "-"
	}
	return value
}
