# The targets a person needs:
#
#   make            build bin/nook, the one static binary
#   make test       the tests; installs what they need where it can, says what is missing where not
#   make install    to $(DESTDIR)$(PREFIX)/bin
#
# and those who work on nook: test-slow race bench fuzz lint cover generate clean

GO      ?= go
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
PKGS    ?= ./...
# urfave_cli_no_docs leaves the manual page generator out, and with it 0.2 ms of start-up.
TAGS    := urfave_cli_no_docs
LDFLAGS := -s -w
BUILD   := -trimpath -tags $(TAGS) -ldflags "$(LDFLAGS)"
# What the race detector is run over. It needs cgo, the one place where nook does;
# integration/ runs the built binary, which has none.
RACE    ?= $(shell $(GO) list -tags $(TAGS) ./... | grep -v -e /integration -e /bench)
FUZZTIME ?= 10s

export CGO_ENABLED := 0

.PHONY: build install test test-slow race bench fuzz lint cover generate clean

build:
	$(GO) build $(BUILD) -o bin/nook ./cmd/nook

install: build
	install -D -m 755 bin/nook $(DESTDIR)$(BINDIR)/nook

test:
	@tools/install-for test
	$(GO) test -tags $(TAGS) -timeout 40m $(TESTFLAGS) $(PKGS)

# Only the slowest: the tests against a whole Debian, and the series that kill
# commands, monitors and stages at any moment, long enough to mean something.
test-slow:
	@tools/install-for test
	$(GO) test ./integration -tags $(TAGS) -timeout 30m -count 1 -run Debian $(TESTFLAGS)
	$(GO) test ./integration -tags $(TAGS) -timeout 30m -count 1 -run TestTorture -torture 500 $(TESTFLAGS)
	$(GO) test ./integration -tags $(TAGS) -timeout 30m -count 1 -run TestStoreTorture -torture.store 300 $(TESTFLAGS)
	$(GO) test ./integration -tags $(TAGS) -timeout 30m -count 1 -run TestBuildTorture -torture.build 100 $(TESTFLAGS)
	$(GO) test ./integration -tags $(TAGS) -timeout 30m -count 1 -run TestVolumeTorture -torture.volumes 100 $(TESTFLAGS)
	$(GO) test ./integration -tags $(TAGS) -timeout 30m -count 1 -run TestBuildCorpusBuildah -corpus.buildah $(TESTFLAGS)
	$(GO) test ./integration -tags $(TAGS) -timeout 30m -count 1 -run TestBuildReal -build.real $(TESTFLAGS)

race:
	@tools/install-for race
	CGO_ENABLED=1 GORACE=atexit_sleep_ms=0 $(GO) test -race -short -tags $(TAGS) -timeout 20m $(TESTFLAGS) $(RACE)

# The table to standard output; `make bench OUT=docs/BENCHMARKS.md` writes the page.
bench: build
	@tools/install-for bench
	$(GO) run -tags $(TAGS) ./bench -nook bin/nook $(if $(OUT),-out $(OUT)) $(BENCHFLAGS)

# Every fuzz target, FUZZTIME each.
fuzz:
	@tools/fuzz $(FUZZTIME)

# The linter is a module of its own, so that its dependencies are none of nook's.
GOLANGCI := .cache/golangci-lint
$(GOLANGCI): tools/golangci/go.mod
	@mkdir -p $(@D)
	cd tools/golangci && $(GO) build -trimpath -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

lint: $(GOLANGCI)
	$(GOLANGCI) run ./...
	$(GO) mod tidy -diff
	GOARCH=arm64 $(GO) build $(BUILD) -o .cache/nook-arm64 ./cmd/nook
	@for f in .ci/run tools/install-for tools/fuzz; do bash -n $$f || exit 1; done

cover:
	@tools/install-for test
	$(GO) test -tags $(TAGS) -timeout 20m -coverpkg ./... -coverprofile coverage.out $(PKGS)
	$(GO) tool cover -func coverage.out | tail -n 1

generate:
	$(GO) generate ./...

clean:
	rm -rf bin .cache coverage.out
