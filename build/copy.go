package build

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"nook/build/dockerfile"
	"nook/internal/hint"
)

// part is what one layer of a COPY is made of: its sources come from one tree.
type part struct {
	tree Tree
	spec SelectSpec
	copy CopySpec
}

// copy does COPY and ADD. Sources of several kinds (files of the context,
// heredocs, URLs) are a layer each.
func (c *chain) copy(ctx context.Context, in *dockerfile.Instruction, cmd *dockerfile.Copy) error {
	vars := c.scope()
	copied := *cmd
	var err error
	for _, text := range []*string{&copied.Dest, &copied.Chown, &copied.Chmod, &copied.Checksum} {
		if *text, err = vars.word(*text); err != nil {
			return err
		}
	}
	copied.Sources = nil
	for _, text := range cmd.Sources {
		source, err := vars.word(text)
		if err != nil {
			return in.Fault(text, err)
		}
		if source == "" {
			return in.Fault(text, fmt.Errorf("the source %s is empty", text))
		}
		copied.Sources = append(copied.Sources, source)
	}
	if copied.Dest == "" {
		return fmt.Errorf("the destination %s is empty", cmd.Dest)
	}
	copied.Exclude = nil
	for _, text := range cmd.Exclude {
		pattern, err := vars.word(text)
		if err == nil && !isText(pattern) {
			err = errors.New("not UTF-8 text")
		}
		if err != nil {
			return in.Fault("--exclude", fmt.Errorf("--exclude=%s: %w", text, err))
		}
		copied.Exclude = append(copied.Exclude, pattern)
	}
	common := CopySpec{
		Dest: c.absolute(copied.Dest), ToDir: copied.Dest == "." || strings.HasSuffix(copied.Dest, "/") || strings.HasSuffix(copied.Dest, "/."),
		Chown: copied.Chown, Chmod: copied.Chmod, Link: copied.Link, Epoch: Epoch{c.s.o.Epoch},
	}
	if len(copied.Sources)+len(copied.Heredocs) > 1 && !common.ToDir {
		return in.Fault(cmd.Dest, hint.Errorf("end it in a slash", "several sources go to %s, which is no directory's name", copied.Dest))
	}
	parts, err := c.parts(ctx, in, &copied, common, vars)
	if err != nil {
		return err
	}
	c.total += max(0, len(parts)-1)
	for i := range parts {
		if err := c.copyPart(ctx, in, &parts[i]); err != nil {
			return err
		}
	}
	return nil
}

// parts sorts the sources by where they come from.
func (c *chain) parts(ctx context.Context, in *dockerfile.Instruction, cmd *dockerfile.Copy, common CopySpec, vars *scope) ([]part, error) {
	var parts []part
	var local []string
	var files []File
	for _, source := range cmd.Sources {
		if !cmd.Add && isURL(source) {
			return nil, in.Fault(source, hint.Errorf("ADD fetches them", "the source %s is a URL, and COPY takes files alone", redacted(source)))
		}
		if cmd.Add && isRemote(source) {
			one, err := c.remote(ctx, cmd, source, common)
			if err != nil {
				return nil, in.Fault(source, err)
			}
			parts = append(parts, one)
			continue
		}
		local = append(local, source)
	}
	if cmd.Checksum != "" && len(parts) == 0 {
		return nil, in.Fault("--checksum", errors.New("--checksum is for sources that are URLs"))
	}
	if len(local) > 0 {
		one := part{copy: common, spec: SelectSpec{
			Sources: local, Parents: cmd.Parents, Exclude: cmd.Exclude,
		}}
		one.copy.Unpack = cmd.Add && (cmd.Unpack == nil || *cmd.Unpack)
		if cmd.From == "" {
			one.tree = c.s.src.tree()
		} else {
			state, err := c.from(ctx, cmd.From)
			if err != nil {
				return nil, in.Fault("--from", err)
			}
			one.tree = Tree{State: &state}
			one.copy.KeepOwner = cmd.Chown == ""
		}
		parts = append([]part{one}, parts...)
	}
	for _, doc := range cmd.Heredocs {
		text := doc.Text()
		if doc.Expand {
			var err error
			if text, err = vars.document(text); err != nil {
				return nil, in.Fault("<<", err)
			}
		}
		if path.Base(doc.Name) != doc.Name || doc.Name == "." || doc.Name == ".." {
			return nil, in.Fault("<<", fmt.Errorf("a heredoc's name is one file's, not %q", doc.Name))
		}
		files = append(files, File{Name: doc.Name, Data: []byte(text), Mode: 0o644})
	}
	if len(files) > 0 {
		parts = append(parts, filesPart(files, common))
	}
	return parts, nil
}

func filesPart(files []File, common CopySpec) part {
	one := part{tree: Tree{Files: files}, copy: common, spec: SelectSpec{Literal: true}}
	for _, f := range files {
		one.spec.Sources = append(one.spec.Sources, f.Name)
	}
	return one
}

// copyPart does one layer. Two keys lead to one of a stage's files: one of what
// the stage was made of, which costs no look at them, and one of the files.
func (c *chain) copyPart(ctx context.Context, in *dockerfile.Instruction, p *part) error {
	name := c.name(redacted(in.Text))
	below := c.b.state
	linked := p.copy.Link && numericOwner(p.copy.Chown)
	if linked {
		below = State{} // the layer is the same wherever it lies
	}
	how := fmt.Sprintf("%q %t %q %t %q %t %t %s", p.copy.Dest, p.copy.ToDir, p.copy.Chown, p.copy.KeepOwner,
		p.copy.Chmod, p.copy.Link, p.copy.Unpack, epochPart(p.copy.Epoch.Epoch))
	var fast stepKey
	info := CacheInfo{Step: name, Kind: "regular"}
	if from := p.tree.State; from != nil {
		fast = stepKey{below, "copy from", *from, how, fmt.Sprintf("%q %t %t %q", p.spec.Sources, p.spec.Literal, p.spec.Parents, p.spec.Exclude)}
		if state, ok := c.s.lookup(fast, below); ok && !c.noCache() {
			c.s.solved(solvedStep{fast, below, state, info})
			if err := c.alsoByContents(ctx, p, solvedStep{stepKey{below, "copy", "", how}, below, state, info}); err != nil {
				return err
			}
			c.last = c.s.begin(name)
			c.last.tell(Event{Kind: Cached})
			c.copied(state, linked, in)
			return nil
		}
	}
	sel, err := c.s.w.Select(ctx, p.tree, p.spec)
	if err != nil {
		step := c.s.begin(name)
		step.end(ctx, err)
		if p.tree.State != nil {
			return err
		}
		return selectFault(err, strings.Join(p.spec.Sources, " "))
	}
	if sel.Sources > 1 && !p.copy.ToDir {
		return hint.Errorf("end it in a slash", "%s are %d files, and go to %s, which is no directory's name",
			strings.Join(p.spec.Sources, " "), sel.Sources, p.copy.Dest)
	}
	p.copy.From = sel
	state, err := c.cached(ctx, name, stepKey{below, "copy", sel.Digest, how}, "regular", below, func(ctx context.Context, _ *step) (State, error) {
		return c.s.w.Copy(ctx, below, p.copy)
	})
	if err != nil {
		return err
	}
	if fast != nil {
		if settled, ok := fast.with(c.s.w.Fetched); ok {
			if err := c.s.w.Remember(settled, state, info); err != nil {
				return err
			}
		}
		c.s.solved(solvedStep{fast, below, state, info})
	}
	c.copied(state, linked, in)
	return nil
}

// alsoByContents notes the other key of a COPY that was found by what the stage
// was made of, where the cache is sent away: who builds that stage again has
// only the files in common.
func (c *chain) alsoByContents(ctx context.Context, p *part, step solvedStep) error {
	if len(c.s.o.CacheTo) == 0 {
		return nil
	}
	if _, here := c.s.w.Fetched(p.tree.State.Layers); !here {
		return nil
	}
	sel, err := c.s.w.Select(ctx, p.tree, p.spec)
	if err != nil {
		return err
	}
	step.key[2] = sel.Digest
	c.s.solved(step)
	return nil
}

// copied puts a layer on the stage; one of --link knows nothing of those below.
func (c *chain) copied(state State, linked bool, in *dockerfile.Instruction) {
	if linked {
		state = State{Layers: append(append([]string{}, c.b.state.Layers...), state.Layers...)}
	}
	c.advance(state, redacted(in.Text))
}

// numericOwner says that an owner can be set without a look at passwd.
func numericOwner(owner string) bool {
	for part := range strings.SplitSeq(owner, ":") {
		if part != "root" && strings.Trim(part, "0123456789") != "" {
			return false
		}
	}
	return true
}

// redacted is an instruction without the passwords in its URLs: history and
// progress are for others' eyes.
func redacted(text string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "://")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("://")
		end := strings.IndexAny(rest, "/ \t\"',?#")
		if end < 0 {
			end = len(rest)
		}
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
			if name, _, secret := strings.Cut(rest[:at], ":"); secret {
				b.WriteString(name + ":xxxxx")
				rest = rest[at:]
			}
		}
		text = rest
	}
}

// isRemote says that a source of ADD is no name in the context.
func isRemote(source string) bool { return isURL(source) || isSCP(source) }

func isURL(source string) bool {
	return slices.ContainsFunc([]string{"http://", "https://", "git://", "ssh://"}, func(scheme string) bool {
		return strings.HasPrefix(source, scheme)
	})
}
