package host

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// Length of the manager's password in characters, and what is looked at in
// bytes at most.
const (
	minPassword = 8
	maxPassword = 128
	mostBytes   = maxPassword * utf8.UTFMax
)

// What a guess costs: argon2id with 19 MiB, 2 passes and one lane, as OWASP
// recommends at least.
const (
	argonKiB    = 19 << 10
	argonPasses = 2
	argonLanes  = 1
	argonKey    = 32
)

// hashers is how many passwords may be hashed at a time: that costs memory.
const hashers = 2

// passwordKey is the record of the manager's password, as a text in the PHC
// form.
var passwordKey = store.Key{Bucket: meta, ID: "manager-password"}

// phc is a hash with all that is needed to compare with it.
type phc struct {
	memory, passes uint32
	lanes          uint8
	salt, sum      []byte
}

// hashPassword makes the hash of a password.
func hashPassword(password string) phc {
	h := phc{memory: argonKiB, passes: argonPasses, lanes: argonLanes, salt: make([]byte, 16)}
	rand.Read(h.salt) // never fails
	h.sum = h.of(password, argonKey)
	return h
}

func (h phc) of(password string, size uint32) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.lanes, size)
}

// fits compares in constant time.
func (h phc) fits(password string) bool {
	return subtle.ConstantTimeCompare(h.sum, h.of(password, uint32(len(h.sum)))) == 1
}

// encoded is the hash as PHC writes it.
func (h phc) encoded() string {
	raw := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.lanes, raw.EncodeToString(h.salt), raw.EncodeToString(h.sum))
}

// parsePHC is the opposite of encoded. It takes no figures that would cost more
// than a login may. No error quotes the text.
func parsePHC(s string) (phc, error) {
	bad := errors.New("the manager's password is not stored as an argon2id hash that this version knows")
	parts := strings.Split(s, "$")
	if len(s) > 512 || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return phc{}, bad
	}
	var h phc
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.lanes); err != nil {
		return phc{}, bad
	}
	var err1, err2 error
	raw := base64.RawStdEncoding.Strict()
	h.salt, err1 = raw.DecodeString(parts[4])
	h.sum, err2 = raw.DecodeString(parts[5])
	lanes := uint32(h.lanes)
	if err := errors.Join(err1, err2); err != nil || lanes < 1 || lanes > 16 || h.passes < 1 || h.passes > 16 || h.memory < 8*lanes || h.memory > 256<<10 ||
		len(h.salt) < 8 || len(h.salt) > 64 || len(h.sum) < 16 || len(h.sum) > 64 || h.encoded() != s {
		return phc{}, bad
	}
	return h, nil
}

// restorePassword reads the manager's password; nil where there is none.
func restorePassword(s store.Snapshot) (*phc, error) {
	text := ""
	if err := getJSON(s, passwordKey, &text); err != nil || text == "" {
		return nil, err
	}
	h, err := parsePHC(text)
	if err != nil {
		return nil, fmt.Errorf("record %v: %w", passwordKey, err)
	}
	return &h, nil
}

// checkPassword refuses what cannot be the manager's password. No error quotes it.
func checkPassword(password string) error {
	n := utf8.RuneCountInString(password)
	text := ""
	switch {
	case !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl):
		text = "the password has characters that cannot be typed"
	case n < minPassword:
		text = fmt.Sprintf("the password has %d characters, at least %d are needed", n, minPassword)
	case n > maxPassword:
		text = fmt.Sprintf("the password has %d characters, at most %d are taken", n, maxPassword)
	default:
		return nil
	}
	return monitor.Errorf(553, []monitor.Pair{{Key: "key", Value: "password"}}, "%s", text)
}

// SetPassword makes a password the manager's, durably, and ends all lock-outs.
func (m *Manager) SetPassword(ctx context.Context, password string) error {
	if err := checkPassword(password); err != nil {
		return err
	}
	var h phc
	if err := m.hash(ctx, func() { h = hashPassword(password) }); err != nil {
		return err
	}
	b, err := json.Marshal(h.encoded())
	if err != nil {
		return err
	}
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	if err := m.commit(ctx, store.Change{Key: passwordKey, Value: b}); err != nil {
		return fmt.Errorf("the manager's password: %w", err)
	}
	m.mu.Lock()
	m.password = &h
	m.guesses.pardon()
	m.mu.Unlock()
	by := caller(ctx)
	m.cfg.Log.Info().Str("caller", by).Msg("the manager's password was set")
	m.cfg.Event("config.changed", "The manager's password was set by "+by+".", monitor.Pair{Key: "what", Value: "managerpassword"}, monitor.Pair{Key: "by", Value: by})
	return nil
}

// hash runs f while no more than a few others do the same.
func (m *Manager) hash(ctx context.Context, f func()) error {
	select {
	case m.hashing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.hashing }()
	f()
	return nil
}

// authenticate checks the manager's password, which a machine at this address
// has sent.
func (m *Manager) authenticate(ctx context.Context, password, address string) error {
	from := sourceOf(address)
	m.mu.Lock()
	h := m.password
	var err error
	switch {
	case h == nil:
		err = wire.Errorf(wire.Denied, `the manager has no password: "managerpassword" in the monitor on the master sets one, "createtoken" makes a token for one host`)
	case len(password) > mostBytes:
		err = wire.Errorf(wire.BadRequest, "the password is longer than %d characters", maxPassword)
	default:
		now := m.cfg.Now()
		if l, ok := m.guesses.begin(now, from); !ok {
			err = tooOften(now, l)
		}
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	fits := false
	if err := m.hash(ctx, func() { fits = h.fits(password) }); err != nil || fits {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.guesses.spare(from)
		if err == nil && m.password != h {
			err = wire.Errorf(wire.Denied, "the manager's password has just been changed")
		}
		return err
	}
	m.mu.Lock()
	n, locked := m.guesses.count(m.cfg.Now(), from)
	m.mu.Unlock()
	m.cfg.Log.Warn().Str("from", from).Int("tries", n).Msg("a wrong manager's password")
	m.cfg.Event("password.wrong", fmt.Sprintf("A host at %s has shown a wrong manager's password, %d times within a minute.", from, n),
		monitor.Pair{Key: "from", Value: from}, monitor.Pair{Key: "tries", Value: n})
	for _, l := range locked {
		m.cfg.Log.Error().Str("from", l.From).Time("until", l.Until).Msg("too many wrong passwords")
		m.cfg.Event("password.locked", fmt.Sprintf("No manager's password is taken from %s until %s: too many were wrong.", l.From, l.Until.Local().Format("15:04:05")),
			monitor.Pair{Key: "from", Value: l.From}, monitor.Pair{Key: "until", Value: l.Until})
	}
	return wire.Errorf(wire.Denied, `the manager's password is wrong`)
}

// tooOften refuses a guess without looking at it.
func tooOften(now time.Time, l lockout) error {
	whose := "from " + l.From
	if l.From == everybody {
		whose = "from all hosts together"
	}
	if !now.Before(l.Until) {
		return wire.Errorf(wire.TooOften, "too many tries %s at the same time; try again in a few seconds", whose)
	}
	return wire.Errorf(wire.TooOften, `too many wrong passwords %s: none is taken until %s, in %d s. "createtoken" on the master makes a token, which is taken all the same`,
		whose, l.Until.UTC().Format(time.RFC3339), ceilSeconds(l.Until.Sub(now)))
}

// sourceOf is what counts as one source: an address or, since whoever has one of
// IPv6 has many, its network of 64 bits.
func sourceOf(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || !ip.Is6() {
		return address
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
}

// caller is who has typed a command.
func caller(ctx context.Context) string {
	if c, ok := monitor.CallerOf(ctx); ok {
		return c.Name
	}
	return "the master"
}
