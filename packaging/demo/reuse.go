package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// plan is what demo.json holds: the addresses that a demo keeps over its stops,
// and what of it runs.
type plan struct {
	Master     string      // address of the master
	Satellites []satellite // all that were ever made
	Run        int         // how many of them run, the first ones
	Users      []string    // who is logged in
}

type satellite struct {
	Name    string
	Address string
}

// loadPlan returns the plan in the directory; ok is false where there is none.
func loadPlan(l layout) (p plan, ok bool, err error) {
	text, err := os.ReadFile(l.planFile())
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, false, fmt.Errorf("%s: %w; remove the demo's directory to begin anew", l.planFile(), err)
	}
	if p.Run < 1 || p.Run > len(p.Satellites) {
		return p, false, fmt.Errorf("%s: %d of %d satellites cannot run; remove the demo's directory to begin anew", l.planFile(), p.Run, len(p.Satellites))
	}
	for _, s := range p.Satellites {
		if !satelliteName.MatchString(s.Name) || net.ParseIP(s.Address) == nil {
			return p, false, fmt.Errorf("%s: there cannot be a satellite %q at %q; remove the demo's directory to begin anew", l.planFile(), s.Name, s.Address)
		}
	}
	return p, true, nil
}

// satelliteName is what satellites of a demo are called; it names directories.
var satelliteName = regexp.MustCompile(`^sat[0-9]{1,4}$`)

func (p plan) save(l layout) error { return writeJSON(l.planFile(), p) }

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(path, append(text, '\n'), 0o644)
}

// replaceFile writes a file that readers see either old or new.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// with returns the plan with so many satellites running and these users. New
// addresses come from free, which is also asked for those the plan has.
func (p plan) with(dir string, satellites int, users []string, free func(ip string) error) (plan, error) {
	have := []string{p.Master}
	for _, s := range p.Satellites {
		have = append(have, s.Address)
	}
	if p.Master == "" {
		have = nil
	}
	for _, ip := range have[:min(len(have), satellites+1)] {
		if err := free(ip); err != nil {
			return p, fmt.Errorf("the demo's address is taken: %w; end the program that has it, or take another --dir", err)
		}
	}
	if n := satellites + 1 - len(have); n > 0 {
		new, err := freeAddresses(dir, n, func(ip string) error {
			if slices.Contains(have, ip) {
				return errors.New("ours")
			}
			return free(ip)
		})
		if err != nil {
			return p, err
		}
		have = append(have, new...)
	}
	p.Master = have[0]
	p.Satellites = slices.Clone(p.Satellites)
	for i := len(p.Satellites); i < satellites; i++ {
		p.Satellites = append(p.Satellites, satellite{Name: fmt.Sprintf("sat%d", i+1), Address: have[i+1]})
	}
	p.Run, p.Users = satellites, users
	return p, nil
}

// publisher owns the base image that all users' desktops start from.
const publisher = "publisher"

var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

func checkUsers(users []string) error {
	if len(users) == 0 {
		return errors.New("--users wants at least one name")
	}
	for i, u := range users {
		switch {
		case !userName.MatchString(u):
			return fmt.Errorf("--users: %q is no login name: a-z 0-9 _ -, at most 32, a letter at the beginning", u)
		case u == publisher || u == "root":
			return fmt.Errorf("--users: %s is not for desktops", u)
		case slices.Contains(users[:i], u):
			return fmt.Errorf("--users: %s is there twice", u)
		}
	}
	return nil
}
