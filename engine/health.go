package engine

import (
	"nook/containers"
	"nook/images"
)

// noHealthCheck is the Test of a container that is not to be checked.
const noHealthCheck = "NONE"

// healthCheck lays what was asked for over the image's check, as docker does;
// nil when there is nothing to run.
func healthCheck(image *images.Healthcheck, asked *containers.HealthCheck) *containers.HealthCheck {
	var h containers.HealthCheck
	if image != nil {
		h = containers.HealthCheck{
			Test: image.Test, Interval: image.Interval, Timeout: image.Timeout,
			StartPeriod: image.StartPeriod, StartInterval: image.StartInterval, Retries: image.Retries,
		}
	}
	if asked != nil {
		if len(asked.Test) > 0 {
			h.Test = asked.Test
		}
		for _, d := range []struct{ to, from *int64 }{
			{(*int64)(&h.Interval), (*int64)(&asked.Interval)},
			{(*int64)(&h.Timeout), (*int64)(&asked.Timeout)},
			{(*int64)(&h.StartPeriod), (*int64)(&asked.StartPeriod)},
			{(*int64)(&h.StartInterval), (*int64)(&asked.StartInterval)},
		} {
			if *d.from != 0 {
				*d.to = *d.from
			}
		}
		if asked.Retries != 0 {
			h.Retries = asked.Retries
		}
	}
	if len(h.Test) == 0 || h.Test[0] == noHealthCheck {
		return nil
	}
	return &h
}
