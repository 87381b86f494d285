# The GPU plug-in, src/cuda, in its two forms (src/cuda/standin.h).
#
# Anywhere with a C++ compiler: tests/test_cuda_NAME.cpp is a program and a test called cuda_NAME, over kernels that
# run on the CPU. Where nvcc 12 or newer is found: libtessera_cuda.so for the GPUs of TESSERA_CUDA_ARCHS, and
# test_cuda_NAME_gpu, the same tests for a real one, beside bench_cuda_NAME, of bench/cuda_NAME.cpp.
#
# nvcc is called by rules of our own: CMake's CUDA language would own the .cu files, and they are compiled twice.
option(TESSERA_CUDA "Build the GPU plug-in where nvcc is found" ON)
set(TESSERA_CUDA_ARCHS 80 86 89 90 CACHE STRING
    "GPU architectures to compile for; the last one also as PTX, for GPUs that are newer")

include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
    message(STATUS "No C++ compiler: nothing of src/cuda is built")
    return()
endif()
enable_language(CXX)

file(GLOB ts_cuda_kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cuda/*.cu)
file(GLOB ts_cuda_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/test_cuda_*.cpp)
file(GLOB ts_cuda_benches CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/cuda_*.cpp)
foreach(name device experts fuse kv latent load run stream) # the device's host code, in C
    list(APPEND ts_cuda_sources ${PROJECT_SOURCE_DIR}/src/cuda/${name}.c)
endforeach()
set(ts_cuda_include ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)

# --- on the CPU --------------------------------------------------------------------------------
# Blocks are read as words and vectors of them, as on a GPU, so no strict aliasing; and a product and a sum are two
# roundings where a kernel says so. ThreadSanitizer doesn't know fibers that change stacks by themselves.
function(ts_cuda_standin)
    add_library(ts_cuda_standin STATIC ${ts_cuda_kernels} ${PROJECT_SOURCE_DIR}/src/cuda/rt_record.cpp)
    set_source_files_properties(${ts_cuda_kernels} PROPERTIES LANGUAGE CXX)
    target_include_directories(ts_cuda_standin PUBLIC ${ts_cuda_include})
    target_compile_features(ts_cuda_standin PUBLIC cxx_std_17)
    target_compile_definitions(ts_cuda_standin PUBLIC TS_CUDA_STANDIN _GNU_SOURCE)
    target_compile_options(ts_cuda_standin PUBLIC -Wall -Wextra -Wno-unknown-pragmas -fno-strict-aliasing
        -ffp-contract=off $<$<BOOL:${TS_WERROR}>:-Werror> $<$<CXX_COMPILER_ID:Clang>:-Wno-pass-failed>)
    if(TS_SANITIZE)
        target_compile_options(ts_cuda_standin PUBLIC -fsanitize=${TS_SANITIZE} -fno-sanitize-recover=all
            -fno-omit-frame-pointer -g1)
        target_link_options(ts_cuda_standin PUBLIC -fsanitize=${TS_SANITIZE})
    endif()
    foreach(source ${ts_cuda_tests})
        get_filename_component(file ${source} NAME_WE)
        string(REGEX REPLACE "^test_" "" name ${file})
        add_executable(${file} ${source})
        target_include_directories(${file} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
        # The file alone: flags that come with the target are for C.
        target_link_libraries(${file} PRIVATE ts_cuda_standin $<TARGET_FILE:ts_standin> $<TARGET_FILE:ts_internal> m)
        add_dependencies(${file} ts_standin ts_internal)
        set_target_properties(${file} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
        add_test(NAME ${name} COMMAND ${file})
        set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900)
    endforeach()
endfunction()

# The device over these kernels: tests, and the plug-in as a file, for tests of the program (TESSERA_CUDA_LIBRARY).
function(ts_cuda_standin_device)
    set(host ${ts_cuda_sources} ${PROJECT_SOURCE_DIR}/src/cuda/rt_standin.c)
    set_target_properties(ts_cuda_standin PROPERTIES POSITION_INDEPENDENT_CODE ON)
    foreach(name device spans)
        set(file test_cuda_${name})
        add_executable(${file} ${PROJECT_SOURCE_DIR}/tests/${file}.c ${host})
        target_compile_definitions(${file} PRIVATE "TS_CUDA_PIECE=(size_t)4000")
        target_link_libraries(${file} PRIVATE ts_check ts_internal $<TARGET_FILE:ts_cuda_standin>)
        add_dependencies(${file} ts_cuda_standin)
        set_target_properties(${file} PROPERTIES LINKER_LANGUAGE CXX
            RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
        add_test(NAME cuda_${name} COMMAND ${file})
        set_tests_properties(cuda_${name} PROPERTIES TIMEOUT 900 COST 90)
    endforeach()
    add_library(tessera_cuda_standin SHARED ${PROJECT_SOURCE_DIR}/src/cuda/plugin.c ${host})
    target_link_libraries(tessera_cuda_standin PRIVATE ts_internal $<TARGET_FILE:ts_cuda_standin>)
    target_link_options(tessera_cuda_standin PRIVATE -Wl,--exclude-libs,ALL)
    add_dependencies(tessera_cuda_standin ts_cuda_standin)
    set_target_properties(tessera_cuda_standin PROPERTIES LINKER_LANGUAGE CXX C_VISIBILITY_PRESET hidden
        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
endfunction()

if(TS_BUILD_TESTS AND NOT TS_FUZZ AND NOT TS_STATIC AND NOT TS_SANITIZE MATCHES "thread")
    ts_cuda_standin()
    ts_cuda_standin_device()
endif()

# --- for GPUs ----------------------------------------------------------------------------------
# The C++ standard library is linked statically (the CUDA runtime too): the plug-in needs nothing but the driver.
function(ts_cuda_plugin nvcc)
    set(flags -std=c++17 -O3 -Xcompiler=-fPIC,-Wall)
    if(TS_WERROR)
        list(APPEND flags -Werror all-warnings)
    endif()
    foreach(dir ${ts_cuda_include} ${PROJECT_SOURCE_DIR}/tests)
        list(APPEND flags -I${dir})
    endforeach()
    foreach(arch ${TESSERA_CUDA_ARCHS})
        list(APPEND archs -gencode=arch=compute_${arch},code=sm_${arch})
    endforeach()
    list(GET TESSERA_CUDA_ARCHS -1 last)
    list(APPEND archs -gencode=arch=compute_${last},code=compute_${last})

    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/cuda)
    foreach(source ${ts_cuda_kernels} ${ts_cuda_tests} ${ts_cuda_benches})
        get_filename_component(file ${source} NAME_WE)
        set(object ${PROJECT_BINARY_DIR}/cuda/${file}.o)
        add_custom_command(OUTPUT ${object} DEPENDS ${source} DEPFILE ${object}.d VERBATIM
            COMMENT "nvcc ${file}"
            COMMAND ${nvcc} ${flags} ${archs} -MD -MF ${object}.d -c ${source} -o ${object})
        if(source MATCHES "\\.cu$")
            list(APPEND objects ${object})
        endif()
    endforeach()

    # The host's part is C; what it needs of the library it has in itself.
    get_filename_component(home ${nvcc} REALPATH)
    get_filename_component(home ${home} DIRECTORY)
    add_library(ts_cuda_host OBJECT ${ts_cuda_sources} ${PROJECT_SOURCE_DIR}/src/cuda/plugin.c
        ${PROJECT_SOURCE_DIR}/src/cuda/rt_cuda.c)
    target_include_directories(ts_cuda_host SYSTEM PRIVATE ${home}/../include)
    target_link_libraries(ts_cuda_host PRIVATE ts_flags)
    set_target_properties(ts_cuda_host PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)

    set(library ${PROJECT_BINARY_DIR}/libtessera_cuda.so)
    add_custom_command(OUTPUT ${library} DEPENDS ${objects} $<TARGET_OBJECTS:ts_cuda_host> ts_internal VERBATIM
        COMMENT "Linking libtessera_cuda.so" COMMAND_EXPAND_LISTS
        COMMAND ${nvcc} -shared -cudart=static -Xcompiler=-static-libstdc++,-static-libgcc
                -Xlinker=--exclude-libs=ALL ${objects} $<TARGET_OBJECTS:ts_cuda_host> $<TARGET_FILE:ts_internal>
                -lpcre2-8 -o ${library})
    add_custom_target(tessera_cuda ALL DEPENDS ${library})

    if(NOT TS_BUILD_TESTS OR TS_SANITIZE)
        return()
    endif()
    foreach(source ${ts_cuda_tests} ${ts_cuda_benches})
        get_filename_component(file ${source} NAME_WE)
        set(target bench_${file})
        if(source IN_LIST ts_cuda_tests)
            set(target ${file}_gpu)
        endif()
        set(program ${PROJECT_BINARY_DIR}/cuda/${target})
        add_custom_command(OUTPUT ${program} VERBATIM COMMENT "Linking ${target}"
            DEPENDS ${objects} ${PROJECT_BINARY_DIR}/cuda/${file}.o ts_standin ts_internal
            COMMAND ${nvcc} -cudart=static ${PROJECT_BINARY_DIR}/cuda/${file}.o ${objects}
                    $<TARGET_FILE:ts_standin> $<TARGET_FILE:ts_internal> -o ${program})
        add_custom_target(${target} ALL DEPENDS ${program})
        if(source IN_LIST ts_cuda_tests AND EXISTS /dev/nvidiactl)
            string(REGEX REPLACE "^test_" "" name ${target})
            add_test(NAME ${name} COMMAND ${program})
            set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900)
        endif()
    endforeach()
endfunction()

if(TESSERA_CUDA AND NOT TS_FUZZ)
    find_program(TESSERA_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda/bin)
    set(ts_nvcc 0)
    if(TESSERA_NVCC)
        execute_process(COMMAND ${TESSERA_NVCC} --version OUTPUT_VARIABLE ts_nvcc ERROR_QUIET)
        string(REGEX MATCH "release ([0-9.]+)" ts_nvcc "${ts_nvcc}")
        set(ts_nvcc "${CMAKE_MATCH_1}")
    endif()
    if(ts_nvcc VERSION_GREATER_EQUAL 12)
        message(STATUS "GPU plug-in: nvcc ${ts_nvcc}, architectures ${TESSERA_CUDA_ARCHS}")
        ts_cuda_plugin(${TESSERA_NVCC})
    else()
        message(STATUS "GPU plug-in: not built, no nvcc 12 or newer")
    endif()
endif()
