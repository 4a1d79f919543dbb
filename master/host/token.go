package host

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

const (
	tokens    = "tokens"     // bucket, by ID
	lastToken = "last-token" // in meta: the highest number ever given
	voidToken = "void-token" // in meta: those up to this number count no more
)

func tokenKey(id uint64) store.Key {
	return store.Key{Bucket: tokens, ID: strconv.FormatUint(id, 10)}
}

func (t *token) change() (store.Change, error) {
	b, err := json.Marshal(t)
	return store.Change{Key: tokenKey(t.ID), Value: b}, err
}

// restoreTokens reads all tokens that count, and the highest number.
func restoreTokens(s store.Snapshot) (all map[uint64]*token, last uint64, err error) {
	var void uint64
	for _, x := range []struct {
		id string
		to *uint64
	}{{lastToken, &last}, {voidToken, &void}} {
		if err := getJSON(s, store.Key{Bucket: meta, ID: x.id}, x.to); err != nil {
			return nil, 0, err
		}
	}
	all = map[uint64]*token{}
	for id, b := range s.All(tokens) {
		t := &token{}
		if err := json.Unmarshal(b, t); err != nil {
			return nil, 0, fmt.Errorf("token %s: %w", id, err)
		}
		if tokenKey(t.ID).ID != id || t.ID == 0 || t.Role != wire.Satellite {
			return nil, 0, fmt.Errorf("the record of token %s describes token %d for a %q", id, t.ID, t.Role)
		}
		if t.ID > void {
			all[t.ID] = t
			last = max(last, t.ID)
		}
	}
	return all, last, nil
}

// getJSON reads a record; what there is not stays as it is.
func getJSON(s store.Snapshot, k store.Key, to any) error {
	b, ok, err := s.Get(k)
	if err == nil && ok {
		if err = json.Unmarshal(b, to); err != nil {
			err = fmt.Errorf("record %v: %w", k, err)
		}
	}
	return err
}

// nextToken is the number of the next token, and the change that notes it.
func (m *Manager) nextToken() (uint64, store.Change) {
	id := m.lastToken + 1
	return id, store.Change{Key: store.Key{Bucket: meta, ID: lastToken}, Value: strconv.AppendUint(nil, id, 10)}
}

// makeToken draws a token; kills are the changes for those that it takes the
// place of. The caller holds the turn and makes all of it durable.
func (m *Manager) makeToken(now time.Time, a *wire.Authority, t token) (secret wire.Token, made *token, changes []store.Change, kills []uint64, err error) {
	id, note := m.nextToken()
	secret = wire.NewToken(a.Cluster, a.Fingerprint(), id)
	t.ID, t.Hash, t.Role, t.Made = id, secret.SecretHash(), wire.Satellite, now.UTC()
	own, err := t.change()
	if err != nil {
		return secret, nil, nil, nil, err
	}
	kills = killedBy(m.tokens, t.Name)
	changes = []store.Change{own, note}
	for _, k := range kills {
		changes = append(changes, store.Change{Key: tokenKey(k)})
	}
	return secret, &t, changes, kills, nil
}

// made takes over tokens after their change is durable.
func (m *Manager) made(t *token, gone ...uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range gone {
		delete(m.tokens, id)
	}
	if t != nil {
		m.tokens[t.ID], m.lastToken = t, max(m.lastToken, t.ID)
	}
}

// CreateToken makes a token that lets one machine join as a new server.
func (m *Manager) CreateToken(ctx context.Context, w monitor.TokenWish) (monitor.NewToken, error) {
	a, err := m.authority()
	if err != nil {
		return monitor.NewToken{}, monitor.Errorf(554, nil, "%v", err)
	}
	ttl, err := tokenTTL(w.TTL)
	if err != nil {
		return monitor.NewToken{}, err
	}
	if w.Server != "" && !validName(w.Server) {
		return monitor.NewToken{}, monitor.Errorf(553, []monitor.Pair{{Key: "key", Value: "server"}, {Key: "value", Value: w.Server}}, "%q is no name for a satellite: %s", w.Server, nameRule)
	}
	if w.Address != "" {
		if err := checkAddress(w.Address); err != nil {
			return monitor.NewToken{}, monitor.Errorf(553, []monitor.Pair{{Key: "key", Value: "address"}, {Key: "value", Value: w.Address}}, "%v", err)
		}
	}
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	if o := m.owner(w.Server); o != nil {
		return monitor.NewToken{}, monitor.Errorf(551, []monitor.Pair{{Key: "kind", Value: "server"}, {Key: "id", Value: o.ID}},
			"server %d has the name %s already; \"replaceserver %d\" lets a new machine take its place", o.ID, o.Name, o.ID)
	}
	now := m.cfg.Now()
	if len(m.tokens) >= maxTokens {
		if err := m.tidyTokens(ctx, now); err != nil {
			return monitor.NewToken{}, err
		}
	}
	if len(m.tokens) >= maxTokens {
		return monitor.NewToken{}, monitor.Errorf(554, nil, "there are %d tokens, as many as there may be: \"tokens\" shows them, \"deletetoken\" deletes one", len(m.tokens))
	}
	secret, t, changes, kills, err := m.makeToken(now, a, token{Name: w.Server, Address: w.Address, Expires: now.Add(ttl).UTC(), By: caller(ctx)})
	if err != nil {
		return monitor.NewToken{}, err
	}
	if err := m.commit(ctx, changes...); err != nil {
		return monitor.NewToken{}, fmt.Errorf("a token: %w", err)
	}
	m.made(t, kills...)
	m.cfg.Log.Info().Uint64("token", t.ID).Str("satellite", t.Name).Str("address", t.Address).Time("expires", t.Expires).Str("caller", t.By).Msg("a token was made")
	return monitor.NewToken{Token: t.row(), Secret: secret.String()}, nil
}

// tokenTTL is how long a token that is wished for so long lives; 0: as usual.
func tokenTTL(wish time.Duration) (time.Duration, error) {
	ttl := cmp.Or(wish, tokenLife)
	if ttl < minTokenLife || ttl > maxTokenLife {
		return 0, monitor.Errorf(553, []monitor.Pair{{Key: "key", Value: "ttl"}, {Key: "value", Value: ttl}}, "a token lives from 1 second to 30 days")
	}
	return ttl, nil
}

// DeleteToken deletes a token, used or not.
func (m *Manager) DeleteToken(ctx context.Context, id uint64) error {
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	t := m.tokens[id]
	if t == nil || !m.cfg.Now().Before(t.Expires) {
		return monitor.Errorf(550, []monitor.Pair{{Key: "kind", Value: "token"}, {Key: "id", Value: id}}, "no token has the ID %d", id)
	}
	if err := m.commit(ctx, store.Change{Key: tokenKey(id)}); err != nil {
		return fmt.Errorf("token %d: %w", id, err)
	}
	m.made(nil, id)
	m.cfg.Log.Info().Uint64("token", id).Str("caller", caller(ctx)).Msg("a token was deleted")
	return nil
}

// Tokens returns the tokens whose life is not over, used ones too.
func (m *Manager) Tokens() []monitor.Token {
	now := m.cfg.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []monitor.Token{}
	for _, id := range slices.Sorted(maps.Keys(m.tokens)) {
		if t := m.tokens[id]; now.Before(t.Expires) {
			out = append(out, t.row())
		}
	}
	return out
}

func (t *token) row() monitor.Token {
	r := monitor.Token{ID: t.ID, Made: t.Made, By: t.By, Expires: t.Expires, Server: t.Name, Address: t.Address, Replaces: t.Server}
	if t.Used != nil {
		r.Uses, r.Used, r.UsedBy, r.From = 1, t.Used.At, t.Used.Answer.Name, t.Used.From
	}
	return r
}

// tidyTokens deletes tokens whose life was over at that time, some at a time. It
// needs the turn.
func (m *Manager) tidyTokens(ctx context.Context, at time.Time) error {
	var changes []store.Change
	var gone []uint64
	for id, t := range m.tokens {
		if !at.Before(t.Expires) && len(gone) < store.MaxChanges {
			gone = append(gone, id)
			changes = append(changes, store.Change{Key: tokenKey(id)})
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := m.commit(ctx, changes...); err != nil {
		return fmt.Errorf("deleting old tokens: %w", err)
	}
	m.made(nil, gone...)
	return nil
}
