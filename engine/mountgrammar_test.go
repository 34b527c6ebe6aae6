package engine

import (
	"strings"
	"testing"

	"nook/internal/hint"
)

// TestDockersGrammar goes through what docker's reference tells of -v (docker
// container run, "volume") and --mount (Storage: volumes, bind mounts, tmpfs
// mounts), and what its own tests refuse. What a user namespace can't do is
// refused with the fact; what means nothing on Linux is taken.
func TestDockersGrammar(t *testing.T) {
	const v, mount = "-v", "--mount"
	for _, tc := range []struct{ flag, value, refused string }{
		{v, "/home", ""}, {v, "/home:/home", ""}, {v, "/with space:/with space", ""}, {v, "/rw:/ro", ""}, {v, "name:/x", ""},
		{v, "./a:/x", ""}, {v, "/a:/x:ro", ""}, {v, "/a:/x:rw", ""}, {v, "name:/x:nocopy", ""}, {v, "name:/x:ro,nocopy", ""},
		{v, "/a:/x:z", ""}, {v, "/a:/x:Z,ro,slave", ""}, {v, "name:/x:z", ""}, {v, "/a:/x:ro,consistent", ""}, {v, "/a:/x:cached", ""},
		{v, "/a:/x:delegated", ""}, {v, "/a:/x:private", ""}, {v, "/a:/x:ro,Z,rprivate", ""}, {v, "/a:/x:slave", ""}, {v, "/a:/x:rslave", ""},
		{v, "/a:/x:shared", "never reach the host"}, {v, "/a:/x:ro,rshared,Z", "never reach the host"},
		{v, "", "invalid volume specification"}, {v, ":", "invalid volume specification"}, {v, ":/x", "invalid volume specification"},
		{v, "::", "invalid volume specification"}, {v, "/a:::", "invalid volume specification"}, {v, "./", "must be absolute"}, {v, "../", "must be absolute"},
		{v, "/:../", "must be absolute"}, {v, "/:path", "must be absolute"}, {v, "/a:", "must be absolute"}, {v, "/a:ro", "must be absolute"},
		{v, "path:ro", "must be absolute"}, {v, "/a:shared", "must be absolute"}, {v, "/a:/x:sw", "invalid mode"}, {v, "/a:/x:rwz", "invalid mode"},
		{v, "/a:/x:rprivate,rslave", "invalid mode"}, {v, "name:/x:rprivate", "invalid mode"}, {v, "name:/x:slave", "invalid mode"},
		{v, "/a:/", "can't be /"},

		{mount, "target=/x", ""}, {mount, "type=volume,source=name,target=/x", ""}, {mount, "type=volume,src=name,dst=/x", ""},
		{mount, "src=name,destination=/x,readonly", ""}, {mount, "src=name,dst=/x,ro", ""}, {mount, "src=name,dst=/x,readonly=1", ""},
		{mount, "src=name,dst=/x,readonly=false", ""}, {mount, "src=name,dst=/x,ro=0", ""}, {mount, "src=name,dst=/x,volume-nocopy", ""},
		{mount, "src=name,dst=/x,volume-nocopy=true", ""}, {mount, "src=name,dst=/x,volume-subpath=a/b", ""},
		{mount, "src=name,dst=/x,volume-label=a=b,volume-label=c", ""}, {mount, "src=name,dst=/x,volume-driver=local", ""},
		{mount, "src=name,dst=/x,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m", ""},
		{mount, "type=bind,src=/a,dst=/x", ""}, {mount, "type=bind,source=.,target=/x", ""}, {mount, "type=bind,source=../,target=/x", ""},
		{mount, "type=bind,src=/a,dst=/x,bind-propagation=rprivate", ""}, {mount, "type=bind,src=/a,dst=/x,bind-propagation=private", ""},
		{mount, "type=bind,src=/a,dst=/x,bind-propagation=slave", ""}, {mount, "type=bind,src=/a,dst=/x,bind-propagation=RSLAVE", ""},
		{mount, "type=bind,src=/a,dst=/x,bind-recursive=enabled", ""}, {mount, "type=bind,src=/a,dst=/x,bind-recursive=disabled", ""},
		{mount, "type=bind,src=/a,dst=/x,readonly,bind-recursive=writable", ""}, {mount, "type=bind,src=/a,dst=/x,bind-nonrecursive", ""},
		{mount, "type=bind,src=/a,dst=/x,readonly,bind-recursive=readonly,bind-propagation=rprivate", ""},
		{mount, "type=bind,src=/a,dst=/x,bind-nonrecursive=false", ""}, {mount, "type=bind,src=/a,dst=/x,bind-create-src", ""},
		{mount, "type=bind,src=/a,dst=/x,bind-create-src=true", ""},
		{mount, "type=bind,src=/a,dst=/x,consistency=cached", ""}, {mount, "type=bind,src=/a,dst=/x,consistency=default", ""},
		{mount, "type=tmpfs,target=/x", ""}, {mount, "type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=0700", ""},
		{mount, "type=tmpfs,dst=/x,tmpfs-size=1MB,tmpfs-mode=1770", ""}, {mount, "type=TMPFS,dst=/x,tmpfs-size=65536,readonly", ""},

		{mount, "type=bind,src=/a,dst=/x,bind-propagation=shared", "never reach the host"},
		{mount, "type=bind,src=/a,dst=/x,bind-propagation=rshared", "never reach the host"},
		{mount, "type=bind,src=/a,dst=/x,bind-propagation=", "invalid mode"},
		{mount, "type=bind,src=/a,dst=/x,bind-recursive=writable", "requires readonly"},
		{mount, "type=bind,src=/a,dst=/x,bind-recursive=readonly", "requires readonly"},
		{mount, "type=bind,src=/a,dst=/x,ro,bind-recursive=readonly,bind-propagation=rslave", "requires bind-propagation=rprivate"},
		{mount, "type=bind,src=/a,dst=/x,bind-recursive=maybe", "invalid value for bind-recursive: maybe"},
		{mount, "type=tmpfs", "target is required"}, {mount, "type=bind", "target is required"}, {mount, "type=volume,source=name", "target is required"},
		{mount, "target=/x,bogus=foo", `unexpected key "bogus" in "bogus=foo"`}, {mount, "target=/x, src=/foo", `unexpected key " src" in " src=/foo"`},
		{mount, "src =/foo,target=/x", `unexpected key "src " in "src =/foo"`}, {mount, "target=/x,bogus", `"bogus" must be a key=value pair`},
		{mount, "type=tmpfs,dst=/x,tmpfs-size=foo", "invalid value for tmpfs-size: foo"}, {mount, "type=tmpfs,dst=/x,tmpfs-mode=foo", "mode=foo"},
		{mount, "src=name,dst=/x,bind-propagation=rprivate", `cannot mix "bind-*" options with mount type "volume"`},
		{mount, "type=bind,src=/a,dst=/x,volume-nocopy=true", `cannot mix "volume-*" options with mount type "bind"`},
		{mount, "type=bind,src=/a,dst=/x,tmpfs-size=1", `cannot mix "tmpfs-*" options with mount type "bind"`},
		{mount, "type=tmpfs,dst=/x,bind-create-src", `cannot mix "bind-*" options with mount type "tmpfs"`},
		{mount, "dst=/x,readonly=", "invalid value for readonly: "}, {mount, "dst=/x,readonly= true", "invalid value for readonly:  true"},
		{mount, "dst=/x,ro=no", "invalid value for ro: no"}, {mount, "dst=/x,volume-nocopy=no", "invalid value for volume-nocopy: no"},
		{mount, "src=/a,dst=/x", "invalid volume name"}, {mount, "type=bind,dst=/x", "Source must not be empty"}, {mount, "type=tmpfs,src=a,dst=/x", "must not be specified"},
		{mount, "src=name,dst=/x,volume-subpath=/a", "relative path within the volume"},
		{mount, "src=name,dst=/x,volume-subpath=a/../../b", "relative path within the volume"},
		{mount, "dst=x", "must be absolute"}, {mount, "dst=/", "can't be /"}, {mount, "dst=/x,volume-subpath=a", "anonymous volumes"},
		{mount, "src=name,dst=/x,volume-driver=nfs", `volume driver "nfs"`}, {mount, "type=image,src=busybox,dst=/x", `mount type "image" is not known`},
		{mount, "type=npipe,src=a,dst=/x", `mount type "npipe" is not known`}, {mount, "type=cluster,src=a,dst=/x", `mount type "cluster" is not known`},
		{mount, "type=bind,src=/a,dst=/x,volume-opt=a=b,volume-driver=local", "cannot mix"}, {mount, `type=bind,"src=/a`, "extraneous or missing"},
	} {
		parse := parseVolume
		if tc.flag == mount {
			parse = parseMount
		}
		_, err := parse(tc.value)
		switch {
		case tc.refused == "" && err != nil:
			t.Errorf("%s %q: %v; docker takes it", tc.flag, tc.value, err)
		case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused) || hint.Of(err) == ""):
			t.Errorf("%s %q: %v (hint %q); want %q and a hint", tc.flag, tc.value, err, hint.Of(err), tc.refused)
		}
	}
}
