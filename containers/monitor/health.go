package monitor

import (
	"strings"
	"time"

	"nook/containers"
)

// docker's defaults of a health check, and the bounds of what is kept of it.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
	healthLog           = 5
	healthOutput        = 4096
)

// checkHealth follows the health of a run of the entrypoint, if the container
// has a check.
func (m *monitor) checkHealth(l *life) {
	check := m.config.HealthCheck()
	if check == nil {
		return
	}
	go func() {
		began := time.Now()
		for {
			wait := time.NewTimer(m.untilProbe(check, time.Since(began)))
			select {
			case <-l.over:
				wait.Stop()
				return
			case <-wait.C:
			}
			m.probe(l, check, time.Since(began) < check.StartPeriod)
		}
	}()
}

// untilProbe is the time to the next probe: shorter while the container starts.
func (m *monitor) untilProbe(check *containers.HealthCheck, age time.Duration) time.Duration {
	m.mu.Lock()
	starting := m.state.Health.Status == containers.HealthStarting
	m.mu.Unlock()
	if starting && age < check.StartPeriod {
		return orDefault(check.StartInterval, healthStartInterval)
	}
	return orDefault(check.Interval, healthInterval)
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// probe runs the check once. One that fails counts from the end of the start
// period on; one that succeeds ends it.
func (m *monitor) probe(l *life, check *containers.HealthCheck, starting bool) {
	m.mu.Lock()
	paused := l.paused
	m.mu.Unlock()
	if paused {
		return
	}
	args := check.Test[1:]
	if check.Test[0] == "CMD-SHELL" {
		args = []string{"/bin/sh", "-c", strings.Join(check.Test[1:], " ")}
	}
	begin := time.Now().UTC()
	limit := orDefault(check.Timeout, healthTimeout)
	code, output, err := m.collect(&containers.ExecRequest{Args: args}, limit, healthOutput)
	select {
	case <-l.over: // the container's end is not its health
		return
	default:
	}
	result := containers.Probe{Start: begin, End: time.Now().UTC(), ExitCode: code, Output: string(output)}
	switch {
	case err != nil:
		result.ExitCode, result.Output = -1, err.Error()
	case code == -1:
		result.Output = "Health check exceeded timeout (" + limit.String() + ")"
	}
	var was, is string
	m.update(func(s *containers.State) {
		h := *s.Health
		was, is = h.Status, h.Status
		if m.life != l { // it ended meanwhile
			return
		}
		h.Log = append(h.Log[max(0, len(h.Log)-healthLog+1):len(h.Log):len(h.Log)], result)
		retries := check.Retries
		if retries == 0 {
			retries = healthRetries
		}
		switch {
		case result.ExitCode == 0:
			h.Failing, h.Status = 0, containers.HealthHealthy
		case starting && h.Status == containers.HealthStarting:
		default:
			if h.Failing++; h.Failing >= retries {
				h.Status = containers.HealthUnhealthy
			}
		}
		is = h.Status
		s.Health = &h
	})
	if is != was {
		m.event("health_status: " + is)
	}
}
