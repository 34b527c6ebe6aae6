package processes

import (
	"os"
	"testing"

	"nook/internal/testenv"
)

func TestMain(m *testing.M) {
	if testenv.IsMonitor() {
		os.Exit(m.Run())
	}
	testenv.RunAsTestUser(m)
}
