"""Error texts of PyTorch, its launchers and its environment, and what each says about the run.

A text means one of four things: memory did not suffice (a smaller micro-batch may help), the infrastructure
failed (another node, or a later time, may help), the values diverged, or the program is wrong (it fails the
same way everywhere). A *primary* text names a cause. A *secondary* text may be a consequence of another
process's end: it decides only if there is no primary text. A *vague* text is one that a library also prints
after a kernel's assertion has broken the device for it.

The patterns are RE2, so each line costs linear time whatever it contains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import re2

from autotuner.trial import Outcome


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of an error text.

    `is_secondary` says that another process's end may be the cause, `is_vague` that a failed assertion of a
    kernel may be.
    """

    outcome: Outcome
    is_secondary: bool = False
    is_vague: bool = False


def meaning(line: str) -> Meaning | None:
    """Return the meaning of a line, None if it is not a known error."""
    if not _ANY.search(line) or _NAMED.search(line):
        return None
    line = _SUPPOSED.sub("", line)
    return next((said for said, pattern in _COMPILED if pattern.search(line)), None)


def _compiled(*texts: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = False
    return re2.compile("|".join(f"(?:{text})" for text in texts), options)


def _child_code(signal: int) -> str:
    """Return a pattern for how launchers print the exit code of a child that a signal ended.

    A shell between them turns the signal into 128 and its number, and make prints that as an error.
    """
    code = r"exit\s?code\s{0,4}[:=]?|return code (?:=|is)|with code"
    return (
        rf"(?:{code}|status) ?-{signal}\b|(?:{code}|\bexit status|\bexited with status) ?{128 + signal}\b"
        rf"|\*\*\* \[.{{1,200}}\] Error {128 + signal}\b"
    )


# These errors quote a name, a key or a path, which may read like any other error, and so may an argument.
_NAMED: Final = _compiled(
    r"^(?:[\w.]{1,200}\.)?(?:KeyError|NameError|AttributeError|UnboundLocalError|ModuleNotFoundError): ",
    r"^(?:[\w.]{1,200}\.)?FileNotFoundError: \[Errno 2\] No such file or directory: ['\"]",
    r"\bNamespace\(|cannot import name '|undefined symbol: |unexpected keyword argument '",
)
_SUPPOSED: Final = _compiled(
    # "If you see CUDA out of memory, lower the batch size", "There are some potential root causes. (1) ...".
    r"\b(?:if you|in case of|in the event of)\b[^.,:;]{0,80}",
    r"\b(?:potential|possible|common|likely)(?: root)? causes\b.*",
    r"\bto (?:catch|handle|avoid|prevent)\b[^.,:;]{0,80}",
    (
        r"\b(?:may|might|could|can) (?:\w{1,20} ){0,2}"
        r"(?:cause|run out|lead|result|encounter|trigger|raise|hit)\b[^.;]{0,80}"
    ),
    # A launcher ends what did not end by itself.
    r"\b(?:exiting via|terminating with|send(?:ing)?) (?:signals?\.)?SIGKILL\b",
    # The counter and the switch of a cgroup.
    r"\boom_kill(?: 0|_disable)\b",
    # PyTorch's advice below an error of CUDA, which it has named before.
    r"^Search for `cuda\w{1,80}' in ",
    # gRPC's code for any limit, of which its details tell which it is.
    r"\bStatusCode\.RESOURCE_EXHAUSTED\b",
)
"""Parts of a line that name an error without saying that it occurred."""
_BUSY: Final = r"(?:408|42[59]|50[0234]|52\d)\b"
"""HTTP's codes of a server that is busy or broken, and of a proxy that does not reach it."""
# What reads like a fault of the program, or like a lack of memory, and is the node's.
_OF_NODE: Final = (
    # InfiniBand pins memory within the node's limit (ulimit -l).
    r"\bibv_\w{1,40}.{0,60}Cannot allocate memory",
    # The program has not chosen a device yet when the devices are counted, so the node is at fault.
    r"cudaGetDeviceCount\(\)|nvidia-container-cli: detection error",
    # The limit of all processes of the node, unlike that of one process.
    r"Too many open files in system",
    # A process that cannot open the device holds no memory there: others do.
    r"\b(?:cuDevicePrimaryCtxRetain|cuCtxCreate)\b.{0,100}out[ _]of[ _]memory",
    # The memory of a server, in the words of its client.
    r"\bused memory > 'maxmemory'",
    (
        r"\b(?:redis|psycopg\w{0,2}|asyncpg|sqlalchemy|pymysql|mysql|clickhouse\w{0,20}|pymongo|elasticsearch)"
        r"\.[\w.]{1,100}: .{0,300}"
        r"\b(?:out of (?:sort )?memory|memory limit|(?:not enough|insufficient) memory)\b"
    ),
    # TensorFlow's name for a full disk.
    r"RESOURCE_?EXHAUSTED.{0,300}(?:No space left on device|Disk quota exceeded)",
)
# A kernel's assertion about values, unlike those about indices.
_OF_VALUES: Final = (
    r"Assertion `(?:probability tensor contains|!?\(?(?:\w{1,20}::)?is_?(?:nan|finite|inf)\b)",
)
_PROGRAM: Final = (
    # "Out of resources" of a Triton kernel concerns its block sizes, not the batch.
    r"OutOfResources: out of resource|too many resources requested for launch",
    r"device-side assert|an illegal memory access|misaligned address|\.cu:\d+: .*Assertion",
    # No batch is so large: a bug has computed this size.
    r"Memory access fault by GPU|Tried to allocate more than 1EB",
    r"invalid device ordinal|no kernel image is available|invalid device function|named symbol not found",
    r"Cannot re-initialize CUDA in forked subprocess",
    r"CUDA (?:driver )?error: (?:initialization error|invalid argument)",
    r"ncclInvalidUsage|ncclInvalidArgument|Duplicate GPU detected|use_libuv was requested",
    r"\bNCCL error\b.{0,200}\binvalid (?:usage|argument)\b",
    r"Expected to have finished reduction in the prior iteration|mark(?:ed)? a variable ready only once",
    r"Expected all tensors to be on the same device|mat1 and mat2 shapes|size mismatch",
    r"Too many open files|received 0 items of ancdata|can't start new thread|in static TLS block",
    r"unrecognized arguments|the following arguments are required",
    r"can't open file .*\[Errno (?:1|2|13|20|21)\]",
    r"Input [Xy] contains NaN",
    (
        r"(?:found|detected|contains?|encountered|got) (?:an? )?nans?\b.{0,40}"
        r"\b(?:data ?sets?|data ?frames?|columns?|csv|input data)\b"
    ),
    r"\b(?:data ?set|data ?frame|columns?|csv)\b.{0,60}\b(?:contains?|has|have) (?:an? )?nans?\b",
    # What a network says of a wrong configuration, which its callers report as a failure of the connection.
    r"CERTIFICATE_VERIFY_FAILED|407 Proxy Authentication|licen[cs]e has expired|Unauthorized for URL",
    r"Tunnel connection failed: 40\d",
    # The libraries of Hugging Face are set to offline mode, and a file is missing.
    r"OfflineModeIsEnabled|\boffline mode is enabled|\boutgoing traffic has been disabled",
    r"\b(?:sent|received) message larger than max\b",
    r"urlopen error (?:unknown url type|no host given|\[Errno (?:2|13|20|21)\])",
    r"Host key verification failed|Permission denied \(publickey",
    # What a container runtime cannot start because of the image or the pod's specification.
    r"executable file not found|exec format error|unable to find (?:user|group) .{1,80}: no matching entries",
    (
        r"\b(?:exec:? [^:]{1,300}: (?:stat .{1,300}: )?|chdir to cwd .*: )"
        r"(?:No such file or directory|permission denied|is a directory|not a directory)\W{0,6}(?:unknown|$)"
    ),
    r"(?:error mounting|mkdir) .*(?:not a directory|read-only file system)\W{1,6}unknown",
    # Compilers of extensions; the errors of Python's build tools only say that one failed.
    r"\bnvcc fatal\b|: fatal error: [\w./+-]{1,200}\.(?:h|hpp|cuh): No such file",
    r"CommError: .{0,400}\b40[134]\b",
)
_MEMORY: Final = (
    r"\b(?:CUDA|HIP|XPU|NPU|MPS|MLU|MUSA|HPU|driver|runtime|device|GPU)\b.{0,40}\bout of memory",
    r"(?:^|[\s:'\"(])out of memory(?:$|[.'\":) ])|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY",
    r"cudaErrorMemoryAllocation|hipErrorOutOfMemory|hipErrorMemoryAllocation",
    r"would exceed allowed memory",
    # Limits on the elements of a tensor and on the size of a launch: only a smaller batch stays within them.
    r"\bINT_MAX (?:elements|$)|larger than INT_MAX|NDArray > 2\*\*32|32-?bit ?index ?math",
    r"\bless than (?:or equal to )?2147483647 but got \d{10}|\b(?:larger|more) than 2(?:\^|\*\*)31\b",
    (
        r"\b(?:CUDA|HIP|error)\b.{0,300}\binvalid configuration argument"
        r"(?:\W{0,3}$| at line \d|\W{1,3}[\w./-]{1,200}\.(?:cu|hip)\b)"
    ),
    r"Can't schedule too many blocks|\bhit an out-of-memory error",
    r"\b(?:input|output) (?:tensor|size) is too large|RuntimeError: (?:output|x) is too large",
    r"RESOURCE[_ ]EXHAUSTED|ResourceExhaustedError|OOM when allocating|\bOOM\b.{0,40}allocat",
    r"OUT_OF_(?:DEVICE|HOST)_MEMORY|(?:UR_RESULT|PI)_ERROR_OUT_OF_RESOURCES",
    r"HSA_STATUS_ERROR_OUT_OF_RESOURCES",
    r"ncclCuMemAlloc.{0,40}fail",
    r"CUSPARSE_STATUS_INSUFFICIENT_RESOURCES|MIOPEN_STATUS_ALLOC_FAILED|miopenStatusAllocFailed",
    r"rocblas_status_memory_error",
    r"ACL stream synchronize failed, error code:107002",
    r"error code(?: is |:)207001\b|No available memory for the cache blocks",
    r"Dst tensor is not initialized|Allocation (?:failed for size|of size\W{1,4}\d+ failed|Failure\b)",
    r"MEM_OBJECT_ALLOCATION_FAILURE",
    r"Failed to CUDA (?:m|c)alloc|failed to alloc\b",
    (
        r"(?:can't|can ?not|could not|couldn't|unable to|failed to) allocate"
        r"(?:$|[^\w\s]|.{0,60}(?:\d ?[kmgt]i?b|(?:memory|byte|buffer|tensor|array|vector|object|storage|space"
        r"|cache|pool|heap|stack|page)s?)\b|\s\d{4,20} (?:bytes )?on device\b)"
    ),
    r"\bAttempting to (?:allocate|reserve) .{1,60}That was not possible",
    r"\bmemory (?:isn't|is not) enough|\bmemory allocation error\b",
    r"\breaching .{0,20}\bmemory usage limit|\bnot (?:have )?enough memory|paging file is too small",
    r"\bmemory not available\b|memory allocation (?:still )?failed|\bbad allocation\b",
    r"\bCUDA (?:runtime |driver )?error:? \(?2\)?(?:$|[\s:\[])",
    r"\bexceed(?:s|ed|ing)? .{0,40}\bmemory limit|\bmem \d+kb exceeded limit",
    r"\bObjectStoreFullError\b",
    r"alloc_cpu\.cpp|memory allocation of \d+ bytes failed|Invalid buffer size: \d",
    r"std::bad_alloc|MemoryError\b|insufficient (?:\w{1,12} )?memory",
    r"malloc(?: of size \d+)? failed|mmap failed",
    r"CUDABadAlloc|CUDA allocation failed|ALLOCATOR_FAILURE|tcmalloc: allocation failed",
    r"\b(?:CUDA|GPU|HIP) OOM\b",
    r"NVML_ERROR_MEMORY|No executable batch size found|does not fit (?:in|into) (?:GPU |device )?memory",
    # Shared memory, which holds the batches of DataLoader workers.
    r"shared memory \(shm\)|out of shared memory|raise your shared memory",
    r"unable to (?:open|allocate|mmap|resize|write).{0,60}(?:shared memory|/torch_|\d+ bytes from file)",
    r"(?:/dev/shm|shm_open|posix_fallocate).{0,120}(?:No space left|fail)",
    r"fail\w* to (?:extend|create|allocate) /dev/shm",
    r"creating shared memory segment|No space left on device: '/dev/shm/",
    r"bus error|SIGBUS",
    _child_code(7),
    # The kernel, the launcher or the process pool reports which process was killed for its memory.
    r"oom.?kill|OOMKilled|running low on memory|excessive memory usage|Memory cgroup|memory pressure \(OOM\)",
)
# A library that cannot allocate its workspace only says that it is not available.
_WITHOUT_HANDLE: Final = (
    r"(?:CU|HIP)(?:BLAS|BLASLT|DNN|SOLVER|SPARSE|FFT|RAND)_(?:STATUS_)?ALLOC(?:ATION)?_FAILED",
    r"(?:CU|HIP)(?:BLAS|DNN|SOLVER)_STATUS_NOT_INITIALIZED",
    r"CUDNN_STATUS_INTERNAL_ERROR(?:$|\W|_(?:BAD|DEVICE|HOST|TEXTURE|UNEXPECTED))",
    r"(?:cu|hip)blasCreate|cudnnCreate|rocblas_create_handle|(?:cu|hip)(?:blas|sparse|solver)\w{0,4}Create\(",
    r"cublas (?:runtime )?error ?: (?:resource allocation failed|(?:the )?library (?:was )?not initialized)",
    r"unable to find (?:a valid cuDNN algorithm|an engine to execute)|no valid convolution algorithms",
    # TensorFlow and JAX say so of a library without a handle, and give the reason above it if at all.
    r"DNN library initialization failed|cuDNN failed to initialize|\bBlas \w{1,40} launch failed",
)
_KILLED: Final = (
    r"killed by signal: Killed|SIGKILL\b|(?:signal:? ?|signals?\.)\(?9\b",
    r"^(?:.{0,200}: )?(?:line \d+: +\d+ )?Killed(?:$|\s{2}|\s*\(|:? 9| process \d)",
    _child_code(9),
    r"signal 9\b|\bworkers? (?:is|are) no longer alive",
    r"DataLoader worker \(pid\(s\).{0,200}exited unexpectedly|BrokenProcessPool|TerminatedWorkerError",
    r"subprocesses has abruptly died",
    r"\bKilledWorker\b|fatal error: Killed signal terminated program",
)
_AROUND: Final = (
    r"uncorrectable (?:ECC|NVLink|memory error)|\bNRT_EXEC_HW_ERR",
    r"ECC_UNCORRECTABLE|NVRM: Xid|\bXid \(PCI|fallen off the bus|GPU is lost",
    r"\bXid\b.{0,40}\bGPU\b|\bGPU\b.{0,40}\bXid\b|\bDEVICE_LOST\b",
    r"_ERROR_DEVICE_(?:LOST|NOT_FOUND|NOT_AVAILABLE|REQUIRES_RESET)",
    r"GPU_IS_LOST|\bdriver is not loaded",
    r"\bNVML\b.{0,60}(?:error|fail|mismatch|unknown|uninit)|initialize NVML|NVML_ERROR|nvmlInit",
    r"\bnvml\w{4,60}\(?\)? failed",
    r"nvml error|determine the device handle for GPU",
    r"Driver/library version mismatch|contained (?:memory|ECC) error|row.?remap|hardware (?:stack )?error",
    r"GPU Hang|\bamdgpu\b.{0,60}(?: ring \S{1,20} timeout|GPU reset)",
    r"\b(?:GPU|HPU|NPU|device)\b.{0,40}\b(?:requires? (?:a )?reset|reset required)",
    r"error code is 507033\b|Failed to start the device|Failed to initialize the HCCP process",
    r"error code(?: is |:)(?:507010|50705[34])\b|HBM MULTI BIT ECC|HSA_STATUS_ERROR_EXCEPTION",
    r"Accelerator device halted prematurely|Core halted unexpectedly|Neuron Runtime could not be initialized",
    r"Expected PJRT device count > 0|Neuron ?Core(?:\(s\)|s) not available",
    r"OS call failed or operation not supported",
    r"\bMPS client (?:failed|has been terminated|have been exhausted)|\bremote MPS server\b",
    r"no (?:CUDA|ROCm)[- ]capable device|No (?:CUDA GPUs|XPU devices) are available|No HIP GPUs",
    r"hipErrorNoDevice|only supported with GPUs, no GPUs found",
    r"cudaErrorNoDevice|\bno visible (?:CUDA |GPU )?devices|\bno supported devices found",
    r"CUDA driver initialization failed|CUDA unknown error|(?:CUDA|HIP) (?:driver )?error: unknown error",
    r"Found no NVIDIA driver",
    r"devices?(?:\(s\))? (?:is|are|is/are) busy or unavailable|system not (?:yet )?initialized",
    r"TPU initialization failed|TPU is already in use|\bSession [0-9a-f]{8,40} is not found",
    r"Device acquire failed|NVMLError",
    r"unspecified launch failure",
    r"the launch timed out|an illegal instruction",
    r"driver (?:version is insufficient|on your system is too old)",
    r"not supported in the installed CUDA driver|Driver is newer than runtime|_INCOMPATIBLE_CUDA_DRIVER",
    r"compiled with an unsupported toolchain",
    # What the container runtime mounts from the node.
    r"\blib(?:cuda|nvidia-ml)\.so[.\d]{0,20}: cannot open shared|PTX JIT compiler library not found",
    r"valid Grid license|startup failure in cuda runtime|exclusive-thread device already in use",
    r"forward compatibility was attempted",
    r"MPS server is not ready|device connections have been exhausted|async error .{1,20} external entity",
    r"(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_MAPPING_ERROR|CDI device injection failed|unresolvable CDI devices",
    r"CUDA (?:driver )?error: (?:mapping|peer access|device kernel image|device not ready|integrity checks)",
    r"Unexpected error from cud(?:a|nn).{0,20}(?:device|count)|nvidia-smi has failed",
    r"cudaErrorSystemNotReady",
    r"cuda (?:runtime )?error \(?(?:4|30|46|719|80[2-4]|999)\b|cudaErrorUnknown",
    r"CUDA_ERROR_(?:UNKNOWN|LAUNCH_FAILED)",
    r"NVML_SUCCESS == r",
    r"unsupported display driver|nvidia-container-cli|OCI runtime|containerd task|shim task",
    r"Node failure|NODE_FAIL",
    r"(?:^|: )illegal instruction(?: \(core|\W{0,3}$)|SIGILL|Machine check",
    _child_code(4),
    # Storage.
    r"Stale (?:NFS )?file handle|Input/output error|Remote I/O error",
    r"\[Errno (?:5|6|14|19|26|28|35|37|61|70|71|103|108|112|116|121|122)\]",
    r"\b(?:EIO|ENOSPC|ESTALE|EDQUOT)\b|Cannot send after transport endpoint shutdown",
    r"No locks available|Interrupted system call",
    # NFS keeps a file under such a name that is deleted while another process has it open.
    r"\[Errno (?:16|39)\].{0,300}/\.nfs[0-9a-f]",
    r"No space left on device|Not enough disk space|Disk quota exceeded",
    r"Transport endpoint is not connected|Host is down",
    r"\[Errno 11\]|PytorchStreamWriter failed|unexpected pos \d+ vs|iostream error|disk I/O error",
    r"NFS: .{0,60}(?:not responding|error)|structure needs cleaning|\[Errno 74\]|: Bad message$",
    r"Lustre.{0,40}error|\bOutOfDiskError\b",
    # Codes that the kernel's network file systems keep to themselves, and sometimes do not.
    r"\bUnknown error 5[12]\d\b",
    # Names, registries, downloads.
    r"\bin name resolution(?:$|[^\w.])|name resolution (?:fail|error)",
    r"Name or service not known|Name does not resolve|getaddrinfo|gaierror",
    r"Temporary failure resolving|\bCONNECTION FAILED for url\b|metadata service\. Status: 5\d\d",
    r"resolve host(?:name)?|\bno such host\b|\bi/o timeout\b|^(?:wget|nc|ping|ftpget): bad address '",
    r"nodename nor servname|Failed to resolve (?:host|address|reference \"|'[^']{1,200}' \()",
    r"NameResolutionError|ImagePullBackOff|ErrImagePull",
    r"TLS handshake",
    r"couldn't connect to|couldn't reach (?:http|'.{1,200}' on the Hub|server)|Max retries exceeded",
    r"MaxRetryError|(?:Connect|Read|Write|Pool)Timeout|Read timed out|(?:Connect|Read) timeout on endpoint",
    r"\bConnectError\b|\bhttp(?:x|core)\.(?:Read|Write|Close)Error\b|RemoteProtocolError",
    r"All connection attempts failed",
    r"Connection error, and we cannot find|Consistency check failed: file should be of size",
    rf"\b{_BUSY} (?:Client |Server )?(?:Error|Too Many|Internal|Backend|Bad Gateway|Service|Gateway)",
    rf"\b{_BUSY} (?:GET|PUT|POST|PATCH|DELETE|HEAD) http|Internal ?Server ?Error",
    rf"\b(?:error|status|response|HTTP)[ _]?code['\"]?(?: of| was| is|:| =|=)? ?{_BUSY}",
    rf"HttpError: .{{0,80}}, {_BUSY}$|\bResourceExhausted: {_BUSY}",
    rf"\bHTTP(?:/\d(?:\.\d)?)?(?: ?error| status)?:? {_BUSY}|(?:\breturned |\bwith |\()error:? {_BUSY}",
    rf"['\"]status['\"]: {_BUSY}|\bResponse \[{_BUSY}|\b{_BUSY}, message=",
    rf"\bApiException: \({_BUSY}|ClientPayloadError",
    r"\brate limit(?:s|ed)?(?: was)? exceeded|Rate exceeded|\bquota exceeded for\b",
    r"\bserver (?:is )?(?:busy|unavailable)\b|\bServerBusy\b|\btry .{0,30}again later\b",
    r"\brequest throttled\b|could not be completed within the (?:specified|permitted) time",
    r"(?:Service|Temporarily) ?Unavailable|Too ?Many ?Requests|IncompleteRead|ChunkedEncodingError",
    r"SSLE(?:OF)?Error|SSLZeroReturnError|TLS/SSL connection has been closed",
    r"EOF occurred in violation of protocol|BAD_RECORD_MAC|record layer failure|SysCallError: \(-1, ",
    r"\bAWS_(?:IO|ERROR_HTTP|ERROR_S3)_\w{0,40}(?:TIMEOUT|CLOSED|FAIL|INTERNAL|SLOW)",
    r"RemoteDisconnected|EndpointConnectionError|LocalEntryNotFoundError|HfHubHTTPError: 5",
    r"UNEXPECTED_EOF|Could not connect to the endpoint URL|Request failed after \d{1,4} retries",
    rf"Request failed with status code',? {_BUSY}|Checksum mismatch while downloading|SSH protocol banner",
    r"Couldn't communicate with backend|ServicePollForTokenError|ServiceStart\w{1,20}Error",
    # Services that are there, and have no place for now.
    r"\btoo many (?:clients already|connections(?:$|[^\w\s]))|\bNoBrokersAvailable\b|database is locked",
    r"\bdatabase system is (?:starting up|shutting down)|\bis loading the dataset in memory",
    r"\bTEMPORARILY_UNAVAILABLE\b",
    r"licen[cs]e checkout failed|Licensed number of users already reached|Unable to open licen[cs]e server",
    r"file lock '.{1,300}' could not be acquired|Couldn't retrieve verification key",
    # A download that was cut off.
    r"invalid hash value \(expected|retrieval incomplete: got only",
    r"Cannot connect to host|Server disconnected|Connection broken|FSTimeoutError|URLError|CommError",
    # What S3, its twins and Azure name a fault of their own.
    (
        r"\((?:InternalError|RequestTimeout|ServiceUnavailable|SlowDown|Throttling\w{0,20}"
        r"|RequestLimitExceeded|RequestTimeTooSkewed"
        r"|BadDigest|OperationAborted|XMinioStorageFull)\)"
        r"|error occurred \(50[0234]\)|reduce your request rate"
    ),
    r"AWS Error (?:NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT)",
    r"<Code>(?:SlowDown|InternalError|ServiceUnavailable)|MetadataRetrievalError",
    r"Server encountered an internal error|server is currently unable to receive requests",
    r": exit (?:6|7|18|28|35|52|55|56|92) \(read\)",
    r"Free memory on device .{0,80}less than",
    r"Address already in use|EADDRINUSE|errno: 98\b",
    r"ORTE was unable to|(?:ORTE|PRTE|PMIX) daemon has|unable to reliably start one or more daemons",
    r"DUE TO (?:PREEMPTION|NODE FAILURE|TIME LIMIT)|preempted",
    r"(?:ORTE|PRTE) has lost communication",
)
_PEERS: Final = (
    r"ncclRemoteError|ncclSystemError|ncclInternalError|ncclUnhandledCudaError|ncclInProgress",
    r"NCCL communicator",
    r"NCCL (?:error|failure|WARN)|NCCL Error \d|unhandled (?:system|cuda) error|remote process exited",
    r"DistBackendError",
    r"\bnetwork error\b|Watchdog caught|Some NCCL operations have failed|watchdog (?:hang|got stuck)",
    r"(?:send|sending|missed|keep-alive|did not (?:get|receive)) (?:\w{1,20}[ -]){0,3}heartbeats?\b",
    r"heartbeats? (?:monitor|(?:has |have )?(?:timeout|timed out|failed|failure|lost|missed|stopped))",
    r"taking the entire process down",
    r"collective operation timeout|Timeout at NCCL work",
    r"ProcessGroupNCCL.{0,200}(?:timeout|timed out|exception)",
    r"ibv_|IBV_WC|NET/IB|NET/Socket.{0,80}(?:fail|error)|UCX +ERROR|Transport retry count",
    r"ib_mlx5_log\.c:\d",
    r"RDMA.{0,40}error",
    r"Connection (?:was )?(?:closed|reset|refused|timed out|aborted|lost)|ConnectionResetError",
    r"ConnectionRefusedError|CommClosedError|\bConnectionError\b|ssh exited with exit code 255",
    r"\bConnection(?:Closed|Failed|Failure|Loss|Lost)(?:Error|Exception)?(?:$|:)",
    r"\bE(?:CONN(?:RESET|REFUSED|ABORTED)|HOSTUNREACH|NETUNREACH|PIPE)\b",
    r"Horovod has been shut down",
    r"RPC failed|hung up unexpectedly|early EOF|connection unexpectedly closed",
    # A thread that still uses the device when its process has ended.
    r"CUDA error: driver shut",
    r"\blost (?:the )?connection|\bconnection to .{1,60} (?:was |has been )?lost\b",
    r"\w(?:Died|Crashed|Lost)(?:Error|Exception)\b",
    r"\b(?:backend|service) process has (?:shut ?down|exited|died)|\btransport failed\b",
    r"ConnectionAbortedError|BrokenPipeError|Broken pipe|closed the connection",
    r"peer.{0,40}(?:closed|gone)",
    r"No route to host|Network is (?:unreachable|down)|Software caused connection abort",
    r"closed by remote",
    r"Socket (?:Timeout|closed|is not connected)|socket has timed out",
    r"(?:recv|send)(?:Value|Bytes|Vector|ValueWithTimeout)? failed|Connection was likely closed",
    r"\b(?:wait|barrier) timeout(?:$| after)|\bConnect timeout(?:$| \[)|RPC ran for more than set timeout",
    r"gloo.{0,200}(?:timed? ?out|closed|reset|fail|error|timeout)|Gloo connectFullMesh|pair closure",
    r"Rendezvous\w{0,40}Error|rendezvous.{0,80}(?:timed? ?out|timeout|fail|closed)|DistStoreError",
    r"DistNetworkError",
    r"timed out\b|store_based_barrier|\bTCPStore\b.{0,200}(?:timeout\b|fail|error|reset)",
    r"(?:in|pass|reached) monitoredBarrier|Barrier timed out|Timeout waiting",
    r"(?:failed|unable) to connect to|failed to recv",
    r"\bRayActorError\b|_InactiveRpcError|\berrors_impl\.(?:Unavailable|DeadlineExceeded|Aborted)Error\b",
    r"_MultiThreadedRendezvous|StatusCode\.(?:UNAVAILABLE|DEADLINE)",
    # Huawei's NPUs: HCCL's errors, and synchronization that ended for time.
    r"\bHccl\w{1,40}(?:\([^)]{0,60}\))?, error code is|HCCL (?:function )?error|\bhccl api failed",
    r"hccl .{0,40}\btimeout occurred|error code is (?:107020|50704[678])\b",
    r"\bEI000[26]:|(?:socket|register|internal task) times out",
    r"store-?>get|Stop_waiting response is expected",
    # A launcher that reports a child's signal may have sent it, after another child's failure.
    r"SIGTERMException|SignalException|got signal: (?:1|2|15)\b|Received SIGTERM|SIGTERM received",
    r"SIGTERM: 15|CANCELLED AT",
    _child_code(15),
    r"^Terminated\s{0,4}$|killed by signal: (?:Terminated|Hangup)|terminated with signal SIG(?:TERM|HUP|INT)",
    r"signal:? ?\(?15\b|line \d+: +\d+ (?:Terminated|Hangup)\b|task \d+: Terminated$",
    r"KeyboardInterrupt|TimeoutError|ETIMEDOUT|deadline.?exceeded|deadline of .{1,20} exceeded",
    # The status of gRPC and JAX, not a module that is "unavailable: ...".
    r"(?-i:UNAVAILABLE:|\(Unavailable: )",
)
_CRASHED: Final = (
    r"segmentation fault|SIGSEGV|signal 11\b",
    # glog's last words.
    r"^F\d{4} .{1,200}\] Check failed: ",
    # Native code prints why it aborts, in another process than the one that says so.
    r"killed by signal: Aborted",
    # Tasks are cancelled because another one has failed.
    r"(?:^|\.)CancelledError\b",
    _child_code(11),
)
_DIVERGED: Final = (
    r"\bloss\b.{0,60}(?:\b(?:is|are|became|becomes|was|=|:|got|returned|not|to)\b|[=:]).{0,30}\b(?:nan|inf|infinite|finite)\b",
    r"\b(?:nan|non-?finite|infinite|inf) (?:loss|gradient|values? in (?:loss|grad))",
    (
        r"\bloss (?:nan|inf)\b|\bnans? (?:(?:or|and|/) inf\w* )?(?:\w{1,12} )?in (?:the )?"
        r"(?:loss|grad|weight|parameter|logit|activation|(?:model |network )?output)"
    ),
    r"\bloss\b.{0,20}\b(?:is|became) not a number\b|\bnot JSON compliant: -?(?:nan|inf)\b",
    r"Invalid loss, terminating",
    (
        r"(?:nan|inf(?:inity)?)s? (?:(?:or|and|/) ?(?:nan|inf(?:inity)?)s? )?"
        r"(?:is |was |were )?(?:detected|found|encountered)"
    ),
    (
        r"(?:found|detected|encountered|contains?|got|produced) (?:an? )?"
        r"(?:either `inf`|`?nan|inf\b|non-?finite|infinite)"
    ),
    r"Minimum loss scale|loss scale (?:already )?(?:at|is at|reached).{0,20}minimum",
    r"cannot decrease scale anymore",
    r"to satisfy the constraint.{0,120}found invalid values|returned nan values|Unexpected result nan",
    r"The parameter \w{1,40} has invalid values",
    r"invalid values:.{0,40}nan|contained non-?finite values",
    (
        r"\b(?:outputs?|predictions?|logits|activations?|weights|parameters|elbo|cost|objective)\b.{0,20}"
        r"\b(?:is|are|was|were|became|become) (?:all )?(?:nan|inf(?:inite)?|not finite|non-?finite)\b"
    ),
    # The scale that mixed precision lowers at each step whose gradients are not finite.
    r"\bnans? persist|\b(?:grad(?:ient)?|loss)[ _]?scale (?:is |was )?too (?:small|low)",
    (
        r"(?:training|loss|model|run|weights|grad(?:ient)?s?|grad(?:ient)?[ _]norm) (?:has |have )?"
        r"(?:diverged|exploded|blew up|blown up)|divergence detected"
    ),
    r"\bloss (?:is |was |has become |became )?too (?:large|high|big)\b",
    r"gradient (?:norm )?(?:is )?(?:nan|non-?finite)",
    r"grad(?:ient)?s?.{0,30}(?:is|are|=) (?:nan|inf|not finite|non-?finite)",
    # A library that is given NaN, or the exponential of a loss that is too large.
    r"contains invalid numeric entries|array must not contain infs or NaNs",
    r"range of \[.{1,60}\] is not finite|histogram is empty, please file|nan in summary histogram",
    r"\bTensor had (?:NaN|Inf)\b|\bNanError: |elements of the .{1,60} tensor are NaN",
    r"OverflowError: (?:math range error|\(34, .{0,20}result out of range)",
    r"Monitored metric.{0,80}not finite|invalid value \((?:nan|inf)\) encountered",
)

_COMPILED: Final = (
    (Meaning(Outcome.LOST), _compiled(*_OF_NODE)),
    (Meaning(Outcome.DIVERGED), _compiled(*_OF_VALUES)),
    (Meaning(Outcome.FAILED), _compiled(*_PROGRAM)),
    (Meaning(Outcome.OUT_OF_MEMORY), _compiled(*_MEMORY)),
    (Meaning(Outcome.OUT_OF_MEMORY, is_vague=True), _compiled(*_WITHOUT_HANDLE)),
    (Meaning(Outcome.OUT_OF_MEMORY, is_secondary=True), _compiled(*_KILLED)),
    (Meaning(Outcome.LOST), _compiled(*_AROUND)),
    (Meaning(Outcome.DIVERGED), _compiled(*_DIVERGED)),
    (Meaning(Outcome.LOST, is_secondary=True), _compiled(*_PEERS)),
    (Meaning(Outcome.FAILED, is_secondary=True), _compiled(*_CRASHED)),
)
_ANY: Final = _compiled(
    *_OF_NODE, *_PROGRAM, *_MEMORY, *_WITHOUT_HANDLE, *_KILLED, *_AROUND, *_DIVERGED, *_PEERS, *_CRASHED
)
"""A fast check: most lines of a log match none of the patterns."""
