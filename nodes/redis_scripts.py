"""The few lines of Lua that make publishing atomic: one key holds pointer, fence epoch and the numbers handed out.

The pointer's value is JSON: `version` (0: none), `epoch` (newest fence), `last` (largest number handed out),
`released` (largest version published). Each script answers {code, detail}.
"""

_POINTER = """
local function read_pointer(key)
  local raw = redis.call('GET', key)
  if not raw then return {version = 0, epoch = 0, last = 0, released = 0} end
  local ok, p = pcall(cjson.decode, raw)
  if not ok or type(p) ~= 'table' or not (p.version and p.epoch and p.last and p.released) then return nil end
  return p
end
local function whole(from)
  for i = 1, #KEYS - from + 1 do
    if redis.call('STRLEN', KEYS[from + i - 1]) ~= tonumber(ARGV[#ARGV - (#KEYS - from + 1) + i]) then
      return KEYS[from + i - 1]
    end
  end
  return nil
end
local p = read_pointer(KEYS[1])
if not p then return {'corrupt', KEYS[1]} end
"""

#: KEYS: pointer. ARGV: a floor. A new fence epoch, above the floor.
TAKE_EPOCH = (
    _POINTER
    + """
p.epoch = math.max(p.epoch, tonumber(ARGV[1] or 0)) + 1
redis.call('SET', KEYS[1], cjson.encode(p))
return {'ok', tostring(p.epoch)}
"""
)

#: KEYS: pointer. ARGV: epoch, a floor. A version number that nobody else gets, above the floor.
RESERVE = (
    _POINTER
    + """
local epoch = tonumber(ARGV[1])
if epoch < p.epoch then return {'fenced', tostring(p.epoch)} end
p.epoch = epoch
p.last = math.max(p.last, tonumber(ARGV[2] or 0)) + 1
redis.call('SET', KEYS[1], cjson.encode(p))
return {'ok', tostring(p.last)}
"""
)

#: KEYS: pointer, releases, manifest, chunks, then those of each base down to the full one. ARGV: version, epoch, who,
#: why, then the length of each key from the manifest on. Moves the pointer only when all of the version is there; keeps
#: its keys from expiring.
RELEASE = (
    _POINTER
    + """
local version, epoch = tonumber(ARGV[1]), tonumber(ARGV[2])
if epoch < p.epoch then return {'fenced', tostring(p.epoch)} end
if version <= p.released then return {'older', tostring(p.released)} end
local broken = whole(3)
if broken then return {'partial', broken} end
for i = 3, #KEYS do redis.call('PERSIST', KEYS[i]) end
local before = p.version
p.version, p.released, p.epoch = version, version, epoch
redis.call('SET', KEYS[1], cjson.encode(p))
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'action', 'publish', 'version', ARGV[1],
  'from', tostring(before), 'epoch', ARGV[2], 'who', ARGV[3], 'why', ARGV[4])
return {'ok', ARGV[1]}
"""
)

#: KEYS: as of RELEASE. ARGV: version, who, why, then the lengths. Points at an older version.
ROLLBACK = (
    _POINTER
    + """
local broken = whole(3)
if broken then return {'partial', broken} end
for i = 3, #KEYS do redis.call('PERSIST', KEYS[i]) end
local before = p.version
p.version = tonumber(ARGV[1])
redis.call('SET', KEYS[1], cjson.encode(p))
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'action', 'rollback', 'version', ARGV[1],
  'from', tostring(before), 'epoch', tostring(p.epoch), 'who', ARGV[2], 'why', ARGV[3])
return {'ok', ARGV[1]}
"""
)

#: KEYS: pointer, manifest, chunks. ARGV: seconds, version, versions that need it. Lets an old version expire, never one
#: that the current one needs; a key that expires already keeps its date.
EXPIRE = (
    _POINTER
    + """
for i = 2, #ARGV do
  if p.version == tonumber(ARGV[i]) then return {'current', ARGV[i]} end
end
for i = 2, #KEYS do
  if redis.call('TTL', KEYS[i]) == -1 then redis.call('EXPIRE', KEYS[i], ARGV[1]) end
end
return {'ok', ARGV[2]}
"""
)
