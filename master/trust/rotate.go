package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"verdecmd/master/job"
	"verdecmd/master/pki"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// rotateAction is the action of the job, and rotateObject what it works on.
const (
	rotateAction = "rotateca"
	rotateObject = "ca"
)

// RegisterJobs tells how the job goes on after a restart. It must be called
// before the jobs run.
func (m *Manager) RegisterJobs() {
	m.cfg.Jobs.Register(rotateAction, func(job.Record) job.Func { return m.work })
}

// takeOver makes files, credentials and the stored rotation agree after a start.
func (m *Manager) takeOver(ctx context.Context) error {
	all, err := pki.Load(m.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is kept elsewhere, which was told before
	}
	if err != nil {
		m.cfg.Log.Error().Err(err).Msg("without the key of the cluster's authority there are no trust bundles: satellites do not learn who was revoked")
		return nil
	}
	m.mu.Lock()
	m.roots = all
	was, since := m.rotation, max(m.bundle.version, m.floor)+1
	names := m.rootNames()
	m.mu.Unlock()
	r := Agree(was, names, since)
	if r.Stage != was.Stage || r.Since != was.Since {
		m.cfg.Log.Warn().Str("stored", string(was.Stage)).Str("now", string(r.Stage)).Msg("what is stored of a change of the authority is not what its files say; the files count")
		if err := m.commit(ctx, r); err != nil {
			return err
		}
	}
	err = m.apply()
	if err == nil && !m.cfg.Credentials.NewestRoot() {
		err = m.reissue(m.Authority())
	}
	if err != nil { // the job of the change tries again, and tells it
		m.cfg.Log.Error().Err(err).Msg("the files of the authorities")
	}
	return nil
}

// commit makes a rotation durable. It needs m.turn.
func (m *Manager) commit(ctx context.Context, r Rotation) error {
	row, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := m.cfg.Store.Commit(context.WithoutCancel(ctx), m.cfg.Epoch, nil, []store.Change{{Key: rotationKey, Value: row}}); err != nil {
		return fmt.Errorf("change of the authority: %w", err)
	}
	m.mu.Lock()
	m.rotation, m.applied = r, false
	m.mu.Unlock()
	return nil
}

// apply makes files and credentials what the rotation wants. It may be repeated.
// The order matters: a key is there before its authority issues, an authority is
// trusted before a certificate of it is shown, and goes after the last one.
func (m *Manager) apply() error {
	m.mu.Lock()
	r, have := m.rotation, m.roots
	done := m.applied
	m.mu.Unlock()
	if r.Stage == Settled || done {
		return nil
	}
	var all []*wire.Authority
	for _, name := range r.Roots() {
		a, err := m.authority(r, have, name)
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	c := m.cfg.Credentials
	if err := c.SetRoots(ders(append(slices.Clone(all), others(have, all)...))); err != nil {
		return err
	}
	if r.Stage != Removing {
		if err := pki.Trust(m.cfg.Dir, all...); err != nil {
			return err
		}
	}
	if c.OwnRoot() != wire.RootName(all[0].DER()) {
		if err := m.reissue(all[0]); err != nil {
			return err
		}
	}
	if r.Stage == Removing {
		if err := pki.Settle(m.cfg.Dir, all[0]); err != nil {
			return err
		}
		if err := c.SetRoots(ders(all)); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.roots, m.applied = all, true
	m.mu.Unlock()
	m.Changed()
	return nil
}

// authority finds one by its name, with its key.
func (m *Manager) authority(r Rotation, have []*wire.Authority, name string) (*wire.Authority, error) {
	for _, a := range have {
		if wire.RootName(a.DER()) == name {
			return a, nil
		}
	}
	if len(r.Next) > 0 && wire.RootName(r.Next) == name {
		return pki.Open(m.cfg.Dir, r.Next)
	}
	return nil, fmt.Errorf("authority %.16s: %w", name, errNoKey)
}

// others are those of have that are not in all.
func others(have, all []*wire.Authority) (out []*wire.Authority) {
	for _, a := range have {
		if !slices.ContainsFunc(all, func(b *wire.Authority) bool { return a.Fingerprint() == b.Fingerprint() }) {
			out = append(out, a)
		}
	}
	return out
}

func ders(all []*wire.Authority) (out [][]byte) {
	for _, a := range all {
		out = append(out, a.DER())
	}
	return out
}

// reissue makes the master a certificate of another authority.
func (m *Manager) reissue(a *wire.Authority) error {
	own, err := pki.Own(a, m.cfg.Credentials.Identity, m.cfg.Now())
	if err == nil {
		err = pki.ReplaceFile(filepath.Join(m.cfg.Dir, wire.IdentityFile), own, 0o600)
	}
	if err == nil {
		err = m.cfg.Credentials.Renew(own)
	}
	if err != nil {
		return fmt.Errorf("the master's own certificate: %w", err)
	}
	m.cfg.Log.Info().Str("authority", wire.RootName(a.DER())).Msg("the master has a new certificate")
	return nil
}

// move makes next the rotation in force, with the bundle that tells of it.
func (m *Manager) move(ctx context.Context, change func(r Rotation, since uint64) (Rotation, error)) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	m.mu.Lock()
	was, since := m.rotation, max(m.bundle.version, m.floor)+1
	m.mu.Unlock()
	r, err := change(was, since)
	if err != nil {
		return err
	}
	if err := m.commit(ctx, r); err != nil {
		return err
	}
	if err := m.apply(); err != nil {
		return err
	}
	m.cfg.Log.Info().Str("stage", string(r.Stage)).Bool("undo", r.Undo).Str("from", r.From).Str("to", r.To).Msg("change of the authority")
	err = m.renew(ctx)
	m.Changed() // Run may have noted a change that came too late for this bundle
	return err
}

// now is the rotation in force, or the one that has ended last.
func (m *Manager) now() Rotation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rotation
}

// RotateCA begins to put another authority into the place of the present one, or
// changes how that goes on: it is taken back, or servers are not waited for. The
// job does the rest.
func (m *Manager) RotateCA(ctx context.Context, abort bool, skip []uint64, by string) (monitor.Job, bool, error) {
	known := map[uint64]bool{}
	for _, x := range m.cfg.Members() {
		known[x.ID] = true
	}
	for _, id := range skip {
		if !known[id] {
			return monitor.Job{}, false, monitor.Errorf(550, []monitor.Pair{{Key: "kind", Value: "server"}, {Key: "id", Value: id}}, "no server has the ID %d", id)
		}
	}
	err := m.move(ctx, func(r Rotation, since uint64) (Rotation, error) {
		switch {
		case m.Authority() == nil:
			return r, monitor.Errorf(554, nil, "%v", errNoKey)
		case abort:
			return r.Abort(since)
		case r.Stage != Settled:
			return r.Skipped(skip), nil
		}
		next, err := wire.NewAuthorityOf(m.cfg.Credentials.Identity.Cluster, m.cfg.Now())
		if err == nil {
			err = pki.Keep(m.cfg.Dir, next)
		}
		if err != nil {
			return r, fmt.Errorf("making an authority: %w", err)
		}
		r = Begin(wire.RootName(m.Authority().DER()), wire.RootName(next.DER()), next.DER(), skip)
		r.Since = since
		return r, nil
	})
	switch {
	case errors.Is(err, ErrSettled):
		return monitor.Job{}, false, monitor.Errorf(554, nil, "%v: there is nothing to take back", err)
	case errors.Is(err, ErrTooLate):
		return monitor.Job{}, false, monitor.Errorf(554, nil, "%v; to change it once more, \"rotateca\"", err)
	case err != nil:
		return monitor.Job{}, false, err
	}
	return m.cfg.Jobs.Start(ctx, job.Spec{Action: rotateAction, Object: rotateObject, By: by}, m.work)
}

// resume starts the job of a change that an earlier master has left without one.
func (m *Manager) resume(ctx context.Context) {
	if m.now().Stage == Settled {
		return
	}
	if _, _, err := m.cfg.Jobs.Start(ctx, job.Spec{Action: rotateAction, Object: rotateObject, By: "the master"}, m.work); err != nil {
		m.cfg.Log.Error().Err(err).Msg(`the change of the authority does not go on; "rotateca" goes on with it`)
	}
}

// stepEvery is how often it is looked whether a stage has come to its end.
const stepEvery = 250 * time.Millisecond

// work is the job: it goes from stage to stage, as far as the servers allow.
func (m *Manager) work(ctx context.Context, p *job.Progress) job.Outcome {
	cancelled := ctx.Done()
	tick := time.NewTicker(stepEvery)
	defer tick.Stop()
	failed := ""
	for {
		r, err := m.step(context.WithoutCancel(ctx), p, cancelled == nil)
		if r.Stage == Settled && err == nil {
			return m.outcome(r)
		}
		if err != nil && err.Error() != failed {
			failed = err.Error()
			m.cfg.Log.Error().Err(err).Msg("change of the authority; trying again")
		}
		if err != nil {
			p.Set(0, "trying again: "+err.Error())
		}
		select {
		case <-m.stop:
			if cancelled != nil {
				<-cancelled // all jobs are let go of
			}
			return job.Outcome{}
		case <-cancelled:
			if errors.Is(context.Cause(ctx), job.ErrStopping) {
				return job.Outcome{}
			}
			cancelled = nil // it is taken back, and that has to go on to its end
			if err := m.move(context.WithoutCancel(ctx), Rotation.Abort); err != nil {
				m.cfg.Log.Error().Err(err).Msg("taking the change of the authority back")
			}
		case <-tick.C:
		}
	}
}

// step carries out what is possible now.
func (m *Manager) step(ctx context.Context, p *job.Progress, cancelled bool) (Rotation, error) {
	m.turn.Lock()
	err := m.apply() // what could not be written before
	m.turn.Unlock()
	r := m.now()
	if err != nil || r.Stage == Settled {
		return r, err
	}
	servers := m.servers()
	missing := r.Missing(servers)
	percent, text := r.Tell(len(servers), count(r.Skip, servers), missing)
	p.Set(percent, text)
	if len(missing) > 0 {
		return r, nil
	}
	if r.Stage == Issuing && !cancelled && !p.Final() {
		return r, nil // cancelled just now
	}
	err = m.move(ctx, func(now Rotation, since uint64) (Rotation, error) {
		if now.Stage != r.Stage || now.To != r.To {
			return now, nil // changed meanwhile
		}
		return now.Onward(since), nil
	})
	if err == nil && r.Stage == Removing {
		m.cutOld(r.To)
	}
	return m.now(), err
}

// count is how many servers are left out.
func count(skip []uint64, servers []Server) (n int) {
	for _, s := range servers {
		if slices.Contains(skip, s.ID) {
			n++
		}
	}
	return n
}

// cutOld ends the links that a certificate of a removed authority has opened.
func (m *Manager) cutOld(root string) {
	var old []string
	m.mu.Lock()
	for _, s := range m.standings {
		if s.Up && s.Root != root {
			old = append(old, s.uuid)
		}
	}
	m.mu.Unlock()
	for _, uuid := range old {
		m.cfg.Cut(uuid)
	}
}

// outcome is the final reply of the job: r has ended.
func (m *Manager) outcome(r Rotation) job.Outcome {
	root := wire.RootName(m.Authority().DER())
	all := m.cfg.Members()
	skipped := 0
	for _, x := range all {
		if slices.Contains(r.Skip, x.ID) {
			skipped++
		}
	}
	pairs := []monitor.Pair{{Key: "authority", Value: root}, {Key: "servers", Value: len(all) - skipped}, {Key: "skipped", Value: skipped}}
	if r.Undo {
		text := "The change of the authority was taken back: the one from before issues and is trusted alone."
		return job.Outcome{Code: 444, Pairs: append(pairs, monitor.Pair{Key: "msg", Value: "taken back"}), Text: text}
	}
	text := fmt.Sprintf("The cluster has a new authority, %s. Tokens from before are void.", wire.FormatFingerprint(m.Authority().Fingerprint()))
	if skipped > 0 {
		text += fmt.Sprintf(" %d servers were left out: register them again.", skipped)
	}
	return job.Outcome{Code: 200, Pairs: pairs, Text: text}
}
